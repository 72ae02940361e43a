# ZegCLIP on COCO-Stuff 164k, transductive, from the checkpoint of an inductive run:
# tools/train.py THIS_FILE --cfg-options load_from=CHECKPOINT
_base_ = "./cocostuff_512_transductive.py"

default_hooks = dict(self_training=dict(begin=0))
train_cfg = dict(max_iters=40000)
