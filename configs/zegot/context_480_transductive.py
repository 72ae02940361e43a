# ZegOT on Pascal Context, transductive, in one run: the second half of the 40k iterations trains
# itself on the pixels of the 10 unseen classes, which are known to be unlabeled.
_base_ = "./context_480.py"

train_dataloader = dict(dataset=dict(setting="transductive"))
default_hooks = dict(self_training=dict(type="SelfTrainingHook", begin=20000))
model = dict(decode_head=dict(seen_bias=0.0))
