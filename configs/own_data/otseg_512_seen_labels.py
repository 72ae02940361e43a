# As otseg_512.py, for data in which only the seen classes are labeled: the unseen ones have no
# label value, their names stand last in `classes`, and validation measures the seen classes alone.
_base_ = "./otseg_512.py"

val_evaluator = dict(unseen_labeled=False)
test_evaluator = dict(unseen_labeled=False)
default_hooks = dict(checkpoint=dict(save_best="mIoU_S"))
