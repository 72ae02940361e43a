# For configs that only evaluate.
train_cfg = None
optim_wrapper = None
param_scheduler = None
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
