"""From a composed config to a finished run: what the scripts at the top level share."""
