# OTSeg on Pascal VOC: no transport in the score map: all prompts count alike.
_base_ = "../otseg/voc_512.py"

model = dict(
    decode_head=dict(score_transport="none"),
)
