_base_ = "./schedule_20k.py"

train_cfg = dict(max_iters=40000, val_interval=4000)
