"""Data sets that outgrow a disk: examples in tar files, read in place from a folder or a URL.

The shards are tar files as WebDataset lays them out (`000000012.image.jpg`, `000000012.json`),
which any tool reads and none has to trust: they hold encoded media, UTF-8 and plain arrays, no
pickles. Beside them lies an index of where every example begins. So a shard is read like any other
split, by position, and `EpochSampler` decides who reads what: every example once per epoch over
processes and workers, in equally many batches, in an order that (seed, epoch) decide, from any
place in an epoch. The price is the index, 20 to 60 bytes an example in memory, and a request an
example where a URL is read without keeping shards near (those of a batch go out at once).

Streaming engines give up some of that. Of 37 examples on two processes, LitData 0.2.76 gives 6 and
7 batches, which stalls distributed training, or 36 of the examples; WebDataset knows no length and
no place to resume. LitData also runs what a stranger's index calls a pickle, and reads no fsspec
URLs.
"""
