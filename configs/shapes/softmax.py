# OTSeg with a softmax over the pixels in place of Sinkhorn, in the score map and in the decoder.
_base_ = "./otseg.py"

model = dict(decode_head=dict(transport="softmax"))
