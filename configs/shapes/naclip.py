# CLIP's map with NACLIP's attention in the last block. There is nothing to train.
_base_ = "./training_free.py"

model = dict(backbone=dict(local_attention="naclip"))
