_base_ = "./schedule_20k.py"

train_cfg = dict(max_iters=80000, val_interval=8000)
