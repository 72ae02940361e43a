# OTSeg on Pascal VOC: softmax cross-attention in place of the Sinkhorn plan, in decoder and score
# map (the ZegCLIP-like baseline).
_base_ = "../otseg/voc_512.py"

model = dict(
    decode_head=dict(transport="softmax"),
)
