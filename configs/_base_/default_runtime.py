default_scope = "mmseg"
custom_imports = dict(imports=["mmseg_otseg"], allow_failed_imports=False)
runner_type = "ConfigFolderRunner"  # mmengine's, in work_dirs/<folder of the config>/<its name>
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),
)
randomness = dict(seed=0)
visualizer = dict(
    type="SegLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")], name="visualizer"
)
log_processor = dict(by_epoch=False)
log_level = "INFO"
load_from = None
resume = False
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="MasterLoggerHook", interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(
        type="DurableCheckpointHook",
        by_epoch=False,
        interval=2000,
        max_keep_ckpts=3,
        save_best="hIoU",
        rule="greater",
    ),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    visualization=dict(type="SegVisualizationHook"),
)
custom_hooks = [
    dict(type="IterationSeedHook"),
    dict(type="SeenPixelsHook"),
    dict(type="FineTuneHook"),
    dict(type="WorkDirLockHook"),
    dict(type="ResumeCheckHook"),
    dict(type="FiniteLossHook"),
]
tta_model = dict(type="SegTTAModel")
