"""Finds, masks and removes neurons in networks of timm and torchvision: `make bench-architectures`.

`python benchmarks/architectures.py [NAME ...]` writes one JSON file a network, a network a family,
skips those that are there, and makes the table README.md beside them. Weights are random; norms,
scales and statistics too, since a fresh network's zeros and ones would hide what goes wrong.

A network passes if masks and removed neurons give the same logits (to 1e-5 of the largest logit)
while another image in the batch keeps all its neurons, for a random 5 % of the neurons; if these
logits are finite and differ from the whole network's; if names and shapes of the state dict stay;
and if the network itself is left as it was. Float32 rounding grows in deep random networks: where
float32 does not agree to 1e-5, float64 must.
"""

import argparse
import json
import warnings
from copy import deepcopy
from pathlib import Path
from time import perf_counter

import timm
import torch
import torchvision
from torch import Tensor, nn

from repair import machine
from shapprune.errors import InputError
from shapprune.model.inference import evaluating
from shapprune.model.masking import masked, remove_neurons
from shapprune.model.neurons import find_neurons
from shapprune.utils.text import describe

OUT = Path(__file__).parent / "results" / "architectures"
SHARE, TOLERANCE, CLASSES, SEED = 0.05, 1e-5, 10, 0

TIMM = (
    "resnet18 resnet50d seresnet18 ecaresnet26t resnext26ts skresnet18 res2net50_14w_8s "
    "resnest14d resnetv2_50 resnetv2_50d_gn bat_resnext26ts botnet26t_256 halonet26t "
    "lambda_resnet26t gcresnext26ts regnetx_002 regnety_002 densenet121 vgg11_bn xception41 "
    "inception_v3 inception_v4 inception_resnet_v2 inception_next_tiny dpn48b dla34 "
    "ese_vovnet19b_dw hrnet_w18_small cspresnet50 cspdarknet53 darknet53 selecsls42b "
    "hardcorenas_a rexnet_100 repvgg_a0 mobileone_s0 efficientnet_b0 tf_efficientnetv2_b0 "
    "mnasnet_050 mobilenetv2_050 mobilenetv3_small_100 mobilenetv4_conv_small fbnetc_100 "
    "spnasnet_100 lcnet_050 tinynet_e ghostnet_050 ghostnetv2_100 tresnet_m nfnet_f0 "
    "dm_nfnet_f0 nf_regnet_b0 gernet_s convnext_atto convnextv2_atto convmixer_768_32 "
    "edgenext_xx_small fastvit_t8 focalnet_tiny_srf hgnet_tiny hgnetv2_b0 repghostnet_050 "
    "repvit_m0_9 starnet_s1 poolformer_s12 caformer_s18 mambaout_femto rdnet_tiny "
    "vit_tiny_patch16_224 deit_tiny_patch16_224 deit_tiny_distilled_patch16_224 "
    "beit_base_patch16_224 eva02_tiny_patch14_224 cait_xxs24_224 xcit_nano_12_p16_224 "
    "crossvit_tiny_240 convit_tiny coat_lite_tiny levit_128s pit_ti_224 pvt_v2_b0 "
    "twins_svt_small nest_tiny swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 "
    "swin_s3_tiny_224 maxvit_tiny_tf_224 coatnet_nano_rw_224 mvitv2_tiny mobilevit_xxs "
    "mobilevitv2_050 davit_tiny gcvit_xxtiny efficientformer_l1 efficientformerv2_s0 "
    "efficientvit_b0 efficientvit_m0 tiny_vit_5m_224 hiera_tiny_224 mixer_s32_224 resmlp_12_224 "
    "gmlp_ti16_224 visformer_tiny volo_d1_224 sequencer2d_s nextvit_small shvit_s1 "
    "swiftformer_xs tnt_s_legacy_patch16_224 flexivit_small vit_base_patch16_clip_224 "
    "vit_relpos_small_patch16_224 sehalonet33ts csatv2 "
)

TORCHVISION = (
    "alexnet vgg11 resnet18 resnext50_32x4d wide_resnet50_2 squeezenet1_1 densenet121 "
    "inception_v3 googlenet shufflenet_v2_x0_5 mobilenet_v2 mobilenet_v3_small mnasnet0_5 "
    "regnet_y_400mf efficientnet_b0 convnext_tiny vit_b_32 swin_t swin_v2_t maxvit_t "
)


def build(library: str, name: str) -> tuple[nn.Module, int]:
    """The network and the side of the smallest images of a few sizes that it takes."""
    if library == "torchvision":
        network = torchvision.models.get_model(name, weights=None, num_classes=CLASSES)
        native = 299 if name == "inception_v3" else 224
    else:
        name = name.rpartition(":")[2]
        native = timm.get_pretrained_cfg(name).input_size[-1]
        network = timm.create_model(name, num_classes=CLASSES)
    network.eval()
    for side in (64, 96, 128, native):
        try:
            with torch.no_grad():
                if network(torch.zeros(2, 3, side, side)).shape == (2, CLASSES):
                    return network, side
        except (RuntimeError, ValueError, AssertionError, IndexError, TypeError):
            if side == native:
                raise
    raise ValueError("logits of another shape")


@torch.no_grad()
def randomise(network: nn.Module) -> None:
    """Take constants out of the way: norms at one and zero, scales at 1e-6, statistics."""
    for parameter in network.parameters():
        if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
            parameter.copy_(torch.rand_like(parameter) * 0.4 + (0.8 if parameter.mean() else -0.2))
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)


def agreement(network: nn.Module, images: Tensor, neurons, removed) -> tuple[float, float, bool]:
    """Largest difference of masked and removed, and what removal changes, to the largest logit;
    whether all is finite."""
    keep = torch.ones(2, len(neurons), dtype=images.dtype)
    keep[0, removed] = 0
    with torch.no_grad(), evaluating(network):
        whole = network(images)
        with masked(network, neurons, keep):
            both = network(images)
        gone = remove_neurons(network, neurons, removed)(images)
    wanted = torch.stack([gone[0], whole[1]])
    size = float(wanted.abs().max())
    finite = bool(torch.stack([gone, whole, both]).isfinite().all())
    return (
        float((both - wanted).abs().max()) / size,
        float((gone - whole).abs().max()) / size,
        finite,
    )


def try_out(library: str, name: str) -> dict[str, object]:
    torch.manual_seed(SEED)
    start = perf_counter()
    network, side = build(library, name)
    randomise(network)
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(SEED))
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    neurons = find_neurons(network, images)
    count = max(1, round(SHARE * len(neurons)))
    order = torch.randperm(len(neurons), generator=torch.Generator().manual_seed(SEED))
    removed = order[:count].tolist()
    difference, effect, finite = agreement(network, images, neurons, removed)
    facts: dict[str, object] = {
        "side": side,
        "neurons": len(neurons),
        "heads": sum(layer.size for layer in neurons.layers if layer.projection),
        "removed": count,
        "float32": difference,
        "effect": effect,
    }
    if difference > TOLERANCE:
        double = deepcopy(network).double()
        difference, _, _ = agreement(double, images.double(), neurons, removed)
        facts["float64"] = difference
    after = network.state_dict()
    pruned = remove_neurons(network, neurons, removed).state_dict()
    hooks = [h for m in network.modules() for h in (*m._forward_hooks, *m._forward_pre_hooks)]
    reasons = {
        f"masked and removed differ by {difference:.1e}": difference > TOLERANCE,
        "removal changes nothing": effect < 1e-7,
        "logits are not finite": not finite,
        "names or shapes changed": {k: v.shape for k, v in pruned.items()}
        != {k: v.shape for k, v in before.items()},
        "the network was changed": bool(hooks)
        or any(not torch.equal(before[k], after[k]) for k in before),
    }
    facts["reason"] = "; ".join(why for why, holds in reasons.items() if holds) or None
    facts["fx"] = traces(network)
    facts["seconds"] = perf_counter() - start
    return facts


def traces(network: nn.Module) -> bool:
    """Whether torch.fx could have traced it, for comparison with the dry run."""
    try:
        torch.fx.symbolic_trace(network)
    except Exception:  # it may be any network's code
        return False
    return True


def table() -> str:
    runs = [json.loads(file.read_text()) for file in sorted(OUT.glob("*.json"))]
    passed = [run for run in runs if run["reason"] is None]
    lines = []
    for library in ("timm", "torchvision"):
        some = [run for run in runs if run["library"] == library]
        good = sum(run["reason"] is None for run in some)
        lines.append(f"- {library}: {good} of {len(some)} families pass.")
    ran = {run["name"] for run in runs if run["library"] == "timm"}
    if missing := [name for name in TIMM.split() if name not in ran]:
        lines.append(f"- Listed, but not run yet: {', '.join(missing)}.")
    heads = sum(bool(run.get("heads")) for run in runs)
    lines += [
        f"- All: {len(passed)} of {len(runs)}, {100 * len(passed) / len(runs):.1f} %; "
        f"attention heads in {heads}.",
        f"- torch.fx traces {sum(bool(run.get('fx')) for run in runs)} of {len(runs)}; the dry run "
        "finds neurons in "
        f"{sum(bool(run.get('neurons')) for run in runs)}.",
        "",
        "| family | side | neurons | heads | difference, float32 | float64 | passed |",
        "|---" * 7 + "|",
    ]
    for run in runs:
        cells = [
            f"{run['library']}:{run['name']}",
            str(run.get("side", "")),
            str(run.get("neurons", "")),
            str(run.get("heads", "") or ""),
            f"{run['float32']:.0e}" if "float32" in run else "",
            f"{run['float64']:.0e}" if "float64" in run else "",
            run["reason"].replace("|", "/") if run["reason"] else "yes",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="timm:NAME or torchvision:NAME; all if none")
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    every = [f"torchvision:{name}" for name in TORCHVISION.split()]
    every += [f"timm:{name}" for name in TIMM.split()]
    versions = {"timm": timm.__version__, "torchvision": torchvision.__version__}
    about = machine()
    about["versions"] |= versions
    for spec in arguments.names or every:
        library, _, name = spec.partition(":")
        name = name.rpartition(":")[2]
        file = OUT / f"{library}_{name}.json"
        if file.exists():
            continue
        try:
            facts = try_out(library, name)
        except (Exception, InputError) as error:  # a stranger's network can raise anything
            facts = {"reason": describe(error)}
        one = {"library": library, "name": name, **facts, "seed": SEED, **about}
        file.write_text(json.dumps(one, indent=1) + "\n")
        print(spec, facts, flush=True)
    (OUT / "README.md").write_text(
        "# Neurons in networks of every family\n\n"
        "Made by `make bench-architectures` from the JSON files beside it; what passing means is "
        "said in benchmarks/architectures.py. Random weights, side × side pixels, a random 5 % of "
        "the neurons removed. Differences are of masked and folded logits, to the largest.\n\n"
        + table()
    )


if __name__ == "__main__":
    main()
