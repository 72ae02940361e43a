# As default_runtime.py, with the curves in Weights & Biases too (pip install wandb; wandb login).
_base_ = "./default_runtime.py"

visualizer = dict(
    vis_backends=[
        dict(type="LocalVisBackend"),
        dict(type="WandbVisBackend", init_kwargs=dict(project="mmseg_otseg")),
    ]
)
