# The OTSeg+ that comes with the project: trained as in the benchmark, only longer.
_base_ = "../otseg_plus.py"

train_cfg = dict(max_iters=8000, val_interval=8000)
