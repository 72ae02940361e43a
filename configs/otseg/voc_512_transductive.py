# OTSeg on Pascal VOC, transductive, in one run: the second half of the 20k iterations trains itself
# on the pixels of the 5 unseen classes, which are known to be unlabeled.
_base_ = "./voc_512.py"

train_dataloader = dict(dataset=dict(setting="transductive"))
default_hooks = dict(self_training=dict(type="SelfTrainingHook", begin=10000))
model = dict(decode_head=dict(seen_bias=0.0))
