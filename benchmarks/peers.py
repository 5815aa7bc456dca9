"""Install other public Perceivers, each in a virtual environment of its own.

    python -m benchmarks.peers install            # all of them
    python -m benchmarks.peers install krasserm   # one

An environment lies under benchmarks/.peers and borrows every package of the interpreter that runs
this, torch first of all: the peer alone is installed, without what it would ask for, so that all
are measured with the same torch.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sysconfig
import venv

from benchmarks.contestants import LIBRARIES, PEERS, interpreter


def install(library: str) -> None:
    """Make the environment of a peer, in place of one that is there."""
    folder = PEERS / library
    shutil.rmtree(folder, ignore_errors=True)
    uv = shutil.which("uv")
    venv.create(folder, with_pip=uv is None, symlinks=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    python = str(folder / "bin" / "python")
    # Old releases name interpreters and versions of torch that they were made for.
    if uv:
        command = [uv, "pip", "install", "--python", python, "--no-deps"]
    else:
        command = [python, "-m", "pip", "install", "--no-deps", "--ignore-requires-python"]
    subprocess.run([*command, *LIBRARIES[library].requirements], check=True)


def main() -> None:
    peers = [name for name, library in LIBRARIES.items() if library.requirements]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["install", "list"])
    parser.add_argument("libraries", nargs="*", metavar="PEER", help=f"of {', '.join(peers)}")
    arguments = parser.parse_args()
    strangers = sorted(set(arguments.libraries) - set(peers))
    if strangers:
        parser.error(f"unknown peer {strangers[0]!r}: choose from {', '.join(peers)}")
    for name in arguments.libraries or peers:
        if arguments.action == "install":
            install(name)
        print(f"{name}: {'installed' if interpreter(name) else 'not installed'}")


if __name__ == "__main__":
    main()
