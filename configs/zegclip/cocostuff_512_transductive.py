# ZegCLIP on COCO-Stuff 164k, transductive, in one run: the second half of the 80k iterations trains
# itself on the pixels of the 15 unseen classes, which are known to be unlabeled.
_base_ = "./cocostuff_512.py"

train_dataloader = dict(dataset=dict(setting="transductive"))
default_hooks = dict(self_training=dict(type="SelfTrainingHook", begin=40000))
model = dict(decode_head=dict(seen_bias=0.0))
