"""Every field of a run, with its unit and its source; the other files hold what differs.

The values are those of the original's Cityscapes configuration
(`configs/video/cityscapes/tmanet_r50-d8_769x769_80k_cityscapes_video.py`) unless a comment says
otherwise. Any field can be set on the command line: `--config.optimizer.learning_rate=0.02`.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """The published Cityscapes run, without its data set."""
    config = ConfigDict()
    config.name = "default"  # names the default workdir, runs/<name>
    config.seed = 0  # of initial weights, shuffling, augmentation and dropout
    config.batch_size = 8  # clips a step, over all devices
    config.num_steps = 80_000  # updates
    config.max_skipped_steps = 0  # steps of one start whose loss or gradient is not finite and that
    # change nothing but the counters of steps; the next one stops the run, and so does the first: 0
    config.accumulate = 1  # parts of a batch that go through the network one after the other

    config.mesh = ConfigDict()
    config.mesh.space = 1  # devices that share each image, by rows; the others divide the batch

    config.model = ConfigDict()
    config.model.depth = 50  # ResNet depth: 18, 34, 50, 101, 152
    config.model.deep_stem = True  # three 3x3 convolutions (ResNetV1c) instead of one 7x7
    config.model.width = 64  # channels of the first stage's blocks
    config.model.blocks = placeholder(tuple)  # blocks of each stage, instead of the depth's own
    config.model.num_classes = 19  # as many as the records have
    config.model.num_memory = 2  # T: memory frames before the query; 0: no memory
    config.model.key_channels = 64
    config.model.value_channels = 256
    config.model.head_channels = 512  # of the bottleneck before the classifier
    config.model.aux_channels = 256  # of the auxiliary head
    config.model.dropout = 0.1  # share of channels dropped before each classifier
    config.model.tied_init = False  # memory encoders begin as copies of the query's (original: no)
    config.model.scale_scores = False  # multiply the scores by key_channels ** -0.5
    config.model.align_corners = True  # of the logits' up-sampling
    config.model.memory_gradient = True  # gradients flow into the memory frames (the original: yes)
    config.model.dtype = "float32"  # compute type, "float32" or "bfloat16"
    config.model.precision = "default"  # of float32 products: "default" is the chip's fast way
    # (TF32 on GPUs, one bfloat16 pass on TPUs), "high", or "highest": float32; all are on CPUs
    config.model.attention = "auto"  # the chip's own kernel reads the memory where it fits
    # (bfloat16 on TPUs and GPUs; "fused" is an older name), or "chunked": it runs anywhere
    config.model.remat = False  # compute the inside of backbone blocks again instead of keeping it

    config.init = ConfigDict()
    config.init.pretrained = ""  # weights of the backbone alone, .safetensors or .pth
    config.init.checkpoint = ""  # weights of a whole TMANet, to fine-tune or to evaluate
    config.init.published = ""  # backbone that the published score begins from, if there is one
    config.init.classes = "compare"  # its names of classes with the records'; "keep" takes them so

    config.data = ConfigDict()
    config.data.dir = ""  # directory of the clip records
    config.data.train_split = "train"
    config.data.eval_split = "val"
    config.data.memory_range = placeholder(int)  # frames before the query that training draws
    # the memory frames from; None: as many as there are memory frames, so the newest ones
    config.data.crop_size = (769, 769)  # height, width in pixels
    config.data.ratio_range = (0.5, 2.0)  # of the random resize
    config.data.cat_max_ratio = 0.75  # share of one class above which a crop is drawn again
    config.data.flip_probability = 0.5
    config.data.photometric = "frame"  # distortion drawn for each "frame" or "clip", or "off"
    config.data.num_workers = 0  # processes that prepare batches; 0: threads of this one
    config.data.render = False  # render a synthetic street if there are no records (the demo)
    config.data.render_size = (128, 256)  # height, width in pixels
    config.data.render_train = 0  # clips
    config.data.render_eval = 0  # clips
    config.data.render_memory_range = 4  # frames before each query: for networks with T up to 4

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate = 0.01
    config.optimizer.min_learning_rate = 1e-4
    config.optimizer.power = 0.9  # of the poly schedule
    config.optimizer.warmup_steps = 0  # linear rise to the schedule (the original: none)
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 5e-4  # of everything, batch norm and biases included

    config.loss = ConfigDict()
    config.loss.aux_weight = 0.4
    config.loss.average = "all"  # over "all" pixels, as the original, or those with a "valid" label
    config.loss.class_weight_power = 0.0  # class weights frequency ** -power; 0: none

    config.eval = ConfigDict()
    config.eval.mode = "slide"  # "slide" (windows) or "whole" (the frame at once)
    config.eval.crop_size = (769, 769)  # height, width of a window in pixels
    config.eval.stride = (513, 513)  # from window to window, in pixels
    config.eval.scale = placeholder(object)  # what frames are resized to before: a factor or the
    # (height, width) that they are to fit; None: as they are, but those more than 1.5 times as high
    # as the frames of training to the height of these. Results have the frame's own size
    config.eval.batch_size = 1  # clips at a time on each device
    config.eval.windows_per_call = 1  # windows of a clip that the network sees at a time
    config.eval.ratios = (1.0,)  # times the scale, one view each; probabilities are averaged
    # (the original's --aug-test: 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, with flip)
    config.eval.flip = False  # segment each resized frame mirrored too
    config.eval.every = 8_000  # steps; also after the last one
    config.eval.num_overlays = 8  # pictures of frame, label and prediction that are kept
    config.eval.num_worst = 8  # pictures of the clips with the lowest mIoU; by mode eval
    config.eval.video_dir = ""  # records of videos (every frame a query) for the report's player
    config.eval.vspw_published = False  # VC8 and VC16 as VSPW's script computes them, mistakes kept

    config.checkpoint = ConfigDict()
    config.checkpoint.every = 2_000  # steps; also at every evaluation
    config.checkpoint.keep = 3  # the newest ones; the best by mIoU is kept besides

    config.log = ConfigDict()
    config.log.every = 50  # steps between lines of the log and points of the curves

    config.profile = ()  # (first, last) step, from 1, of a trace in WORKDIR/profile; (): none
    return config
