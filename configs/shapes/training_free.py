# CLIP's own dense map: the mean cosine of each patch with a class's prompts. There is nothing
# to train: this config is for testing.
_base_ = "./otseg.py"

protocol = "training_free"  # needs no checkpoint; names and thresholds of such models with --data

model = dict(
    backbone=dict(visual_prompts=None, drop_path_rate=0.0),
    neck=dict(relationship_descriptor=False),
    decode_head=dict(transport="none", decoder_layers=0, predict_from="score"),
)
