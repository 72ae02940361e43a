# OTSeg on your own data; README.md beside this file goes through it. Derive a file from this one,
# or change the four settings with --cfg-options.
_base_ = [
    "../_base_/models/otseg.py",
    "../_base_/datasets/folder_512.py",
    "../_base_/schedules/schedule_20k.py",
    "../_base_/default_runtime.py",
]

data_root = "data/own"  # holds images/{train,val} and labels/{train,val}
background = None  # the label value that is not a class; None if every value is one
model = dict(
    split=dict(
        # Names in the order of the label values, or a file with one name per line.
        classes=["sky", "building", "road", "tree", "car"],
        unseen=["tree"],  # never learned from, known by name only
    ),
)

param_scheduler = dict(warmup_iters=500)
train_cfg = dict(max_iters=5000, val_interval=1000)
default_hooks = dict(checkpoint=dict(interval=1000))
