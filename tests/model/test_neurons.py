"""Neurons of networks of every shape: found, masked, removed, played."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from shapprune.errors import InputError
from shapprune.model.inference import evaluating
from shapprune.model.masking import masked, remove_neurons
from shapprune.model.neurons import Layer, Neurons, find_neurons
from toys import BUILDERS, LAYERS, build, random_images, seeded

every_shape = pytest.mark.parametrize("name", BUILDERS)


def toy(name: str) -> tuple[nn.Module, Neurons]:
    model = build(name)
    return model, find_neurons(model, random_images())


def some(neurons: Neurons, seed: int = 0, share: float = 0.3) -> list[int]:
    """A random choice of neurons, at least one of each layer."""
    chosen = torch.rand(len(neurons), generator=seeded(seed)) < share
    for part in neurons.split(chosen):
        part[seed % len(part)] = True
    return chosen.nonzero().flatten().tolist()


def keep(neurons: Neurons, removed: list[int]) -> torch.Tensor:
    mask = torch.ones(1, len(neurons))
    mask[:, removed] = 0
    return mask


# Finding


@every_shape
def test_layers(name):
    _, neurons = toy(name)
    assert [(layer.name, layer.size) for layer in neurons.layers] == LAYERS[name]
    assert len(neurons) == sum(size for _, size in LAYERS[name])


@every_shape
def test_the_head_has_no_neurons(name):
    model, neurons = toy(name)
    head = [key for key, m in model.named_modules() if isinstance(m, nn.Linear)][-1]
    assert head not in {layer.name for layer in neurons.layers}


def test_a_convolution_can_be_the_head():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    assert find_neurons(model, random_images()).layers == (Layer("0", 4, 1),)


def test_the_dry_run_takes_one_image_once_and_twice():
    seen = []

    class Watches(nn.Sequential):
        def forward(self, x):
            seen.append(len(x))
            return super().forward(x)

    find_neurons(Watches(build("conv-bn")), random_images(4))
    assert seen == [1, 1, 2]  # checked; once; and twice, since what doubles are the images


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.InstanceNorm2d])
def test_no_neurons_before_a_norm_without_parameters(norm):
    """No weight could hold the norm's output at zero."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        norm(4, affine=False),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    )
    assert [layer.name for layer in find_neurons(model, random_images()).layers] == ["3"]


@pytest.mark.parametrize("model", [nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), nn.Flatten()])
def test_a_model_without_neurons(model):
    with pytest.raises(InputError, match="no prunable neurons"):
        find_neurons(model, random_images())


def test_unused_modules_have_no_neurons():
    model = build("conv-bn")
    model.spare = nn.Conv2d(3, 9, 3)
    model.forward = lambda x: nn.Sequential(*list(model)[:-1])(x)
    assert len(find_neurons(model, random_images())) == 10


def test_numbers_and_names():
    _, neurons = toy("functional")
    assert neurons.locate(0) == ("norm", 0)
    assert neurons.locate(5) == ("norm", 5)
    assert neurons.locate(6) == ("conv2", 0)
    assert neurons.locate(16) == ("hidden", 6)
    with pytest.raises(InputError, match="no such neuron: expected 0"):
        neurons.locate(17)
    parts = neurons.split(torch.arange(34).view(2, 17))
    assert [tuple(part.shape) for part in parts] == [(2, 6), (2, 4), (2, 7)]
    assert parts[1][0].tolist() == [6, 7, 8, 9]


# Masks and removal


@every_shape
@pytest.mark.parametrize("seed", range(3))
def test_masked_forward_is_folded_forward(name, seed):
    model, neurons = toy(name)
    images, removed = random_images(), some(neurons, seed)
    with torch.no_grad():
        whole = model(images)
        with masked(model, neurons, keep(neurons, removed)):
            expected = model(images)
        pruned = remove_neurons(model, neurons, removed)(images)
    torch.testing.assert_close(pruned, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(pruned, whole, atol=1e-3)


@every_shape
def test_each_neuron_alone(name):
    """A wrong channel, or one too many, shows."""
    model, neurons = toy(name)
    images = random_images(2)
    with torch.no_grad():
        for neuron in range(len(neurons)):
            with masked(model, neurons, keep(neurons, [neuron])):
                expected = model(images)
            pruned = remove_neurons(model, neurons, [neuron])(images)
            torch.testing.assert_close(pruned, expected, rtol=0, atol=1e-5)


@every_shape
def test_a_mask_for_each_image(name):
    model, neurons = toy(name)
    images = random_images(5)
    removed = [some(neurons, seed) for seed in range(5)]
    masks = torch.cat([keep(neurons, gone) for gone in removed])
    with torch.no_grad():
        with masked(model, neurons, masks):
            together = model(images)
        for image, gone, answer in zip(images, removed, together, strict=True):
            alone = remove_neurons(model, neurons, gone)(image[None])[0]
            torch.testing.assert_close(answer, alone, rtol=0, atol=1e-5)


def test_a_mask_for_each_image_where_images_become_several_rows():
    """Windows: an image's rows follow each other."""

    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.Linear(48, 6)
            self.head = nn.Linear(6, 5)

        def forward(self, x):
            windows = x.view(len(x), 3, 2, 4, 2, 4).permute(0, 2, 4, 1, 3, 5).reshape(-1, 48)
            return self.head(F.relu(self.up(windows))).view(len(x), 4, 5).mean(1)

    model, images = Windows(), random_images(3)
    neurons = find_neurons(model, images)
    removed = [[0, 1], [2], [3, 4, 5]]
    with torch.no_grad():
        with masked(model, neurons, torch.cat([keep(neurons, gone) for gone in removed])):
            together = model(images)
        for image, gone, answer in zip(images, removed, together, strict=True):
            alone = remove_neurons(model, neurons, gone)(image[None])[0]
            torch.testing.assert_close(answer, alone, rtol=0, atol=1e-5)


@every_shape
def test_removed_neurons_put_out_exactly_zero(name):
    model, neurons = toy(name)
    removed = some(neurons)
    pruned = remove_neurons(model, neurons, removed)
    gone = [neurons.locate(neuron) for neuron in removed]
    for layer in neurons.layers:
        if layer.projection:  # what reads a head is zeroed, see below
            continue
        outputs = []
        handle = pruned.get_submodule(layer.name).register_forward_hook(
            lambda _module, _inputs, output, outputs=outputs: outputs.append(output.clone())
        )
        with torch.no_grad():
            pruned(random_images())
        handle.remove()
        for output in outputs:
            for channel in range(layer.size):
                values = output.select(layer.dim, channel)
                assert bool((values == 0).all()) == ((layer.name, channel) in gone)


@every_shape
def test_removal_changes_only_rows(name):
    model, neurons = toy(name)
    removed = some(neurons)
    before, after = model.state_dict(), remove_neurons(model, neurons, removed).state_dict()
    assert {k: v.shape for k, v in before.items()} == {k: v.shape for k, v in after.items()}
    gone = {neurons.locate(neuron) for neuron in removed}
    heads = {layer.projection: layer for layer in neurons.layers if layer.projection}
    for key, value in before.items():
        module, _, kind = key.rpartition(".")
        if module in heads and kind == "weight":
            width = value.shape[1] // heads[module].size
            value = value.clone()
            for column in range(value.shape[1]):
                if (heads[module].name, column // width) in gone:
                    value[:, column] = 0
        if kind not in ("weight", "bias"):
            assert torch.equal(after[key], value)
            continue
        for row in range(len(value)):
            expected = torch.zeros_like(value[row]) if (module, row) in gone else value[row]
            assert torch.equal(after[key][row], expected)


def test_the_copy_is_no_alias():
    model, neurons = toy("conv-bn")
    pruned = remove_neurons(model, neurons, [])
    ours = {p.data_ptr() for p in pruned.parameters()} | {b.data_ptr() for b in pruned.buffers()}
    theirs = {p.data_ptr() for p in model.parameters()} | {b.data_ptr() for b in model.buffers()}
    assert not ours & theirs


@every_shape
def test_full_masks_change_nothing(name):
    model, neurons = toy(name)
    with torch.no_grad():
        expected = model(random_images())
        with masked(model, neurons, torch.ones(1, len(neurons))):
            torch.testing.assert_close(model(random_images()), expected)
        assert torch.equal(model(random_images()), expected)


def test_half_a_mask_halves():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.Linear(6, 5, bias=False))
    neurons = find_neurons(model, random_images())
    with torch.no_grad(), masked(model, neurons, torch.full((1, 6), 0.5)):
        halved = model(random_images())
    torch.testing.assert_close(halved, model(random_images()) / 2)


def test_no_neuron_has_a_negative_number():
    _, neurons = toy("conv-bn")
    with pytest.raises(InputError, match="no such neuron: expected 0"):
        neurons.locate(-1)


def test_reparametrized_weights():
    """Weight norm: either such a layer has no neurons, or removing them works."""
    model = build("plain-conv")
    nn.utils.parametrizations.weight_norm(model[0])
    neurons = find_neurons(model, random_images())
    with torch.no_grad():
        with masked(model, neurons, keep(neurons, [0])):
            expected = model(random_images())
        pruned = remove_neurons(model, neurons, [0])(random_images())
    torch.testing.assert_close(pruned, expected, rtol=0, atol=1e-5)


def test_layer_norm_of_channels_in_images_as_wide():
    """ConvNeXt's norm: a `LayerNorm` that turns (n, C, H, W) round, here with C = W."""

    class ChannelNorm(nn.LayerNorm):
        def forward(self, x):
            return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    model = build("groupnorm")
    model[0], model[1] = nn.Conv2d(3, 6, 3), ChannelNorm(6)
    neurons = find_neurons(model, random_images())
    assert neurons.layers[0] == Layer("1", 6, 1)


def test_an_addition_in_place_is_no_layers_output():
    """``x += conv(x)`` has the neurons that ``x = x + conv(x)`` has."""

    class InPlace(type(build("pre-activation"))):
        def forward(self, x):
            x = self.conv1(x)
            out = self.conv2(F.relu(self.norm1(x)))
            out += x
            return self.head(F.relu(self.norm2(out)).mean((2, 3)))

    found = find_neurons(InPlace(), random_images())
    assert [(layer.name, layer.size) for layer in found.layers] == LAYERS["pre-activation"]


def test_heads_are_slices_of_what_the_projection_reads():
    """Removing a head is the same as zeroing its rows of the values."""
    model, neurons = toy("transformer")
    start = neurons.split(torch.arange(len(neurons)))[1]
    pruned, emptied = remove_neurons(model, neurons, [int(start[1])]), build("transformer")
    with torch.no_grad():
        for parameter in emptied.attn.qkv.parameters():
            parameter[12 + 3 :] = 0
        torch.testing.assert_close(pruned(random_images()), emptied(random_images()))
        start = neurons.split(torch.arange(len(neurons)))[3]
        pruned, emptied = remove_neurons(model, neurons, [int(start[1])]), build("transformer")
        attention = emptied.block.self_attn
        attention.in_proj_weight[12 + 2 : 12 + 4] = 0
        attention.in_proj_bias[12 + 2 : 12 + 4] = 0
        torch.testing.assert_close(pruned(random_images()), emptied(random_images()))


def test_attention_is_whole_again_after_an_error():
    model, neurons = toy("transformer")
    weight, bias = model.block.self_attn.out_proj.parameters()
    before = weight.clone()
    with pytest.raises(KeyError), masked(model, neurons, torch.ones(1, len(neurons))):
        raise KeyError
    assert model.block.self_attn.out_proj.weight is weight
    assert model.block.self_attn.out_proj.bias is bias
    assert torch.equal(weight, before)


def test_shared_parameters_are_left_alone():
    """Two layers of one weight: a row of it is nobody's own."""
    model = nn.Sequential(nn.Flatten(), *(nn.Linear(192, 192) for _ in "ab"), nn.Linear(192, 5))
    model[2].weight = model[1].weight
    with pytest.raises(InputError, match="no prunable neurons"):
        find_neurons(model, random_images())


def test_two_heads_of_a_distilled_transformer():
    class Distilled(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.Linear(192, 6)
            self.head, self.head_dist = nn.Linear(6, 5), nn.Linear(6, 5)

        def forward(self, x):
            x = F.relu(self.up(x.flatten(1)))
            return (self.head(x) + self.head_dist(x)) / 2

    assert find_neurons(Distilled(), random_images()).layers == (Layer("up", 6, 1),)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_shape
def test_half_precision(name, dtype):
    model, neurons = toy(name)
    model, images, removed = model.to(dtype), random_images().to(dtype), some(neurons)
    assert find_neurons(model, images) == neurons
    pruned = remove_neurons(model, neurons, removed)
    assert {p.dtype for p in pruned.parameters()} == {dtype}
    with torch.no_grad():
        with masked(model, neurons, keep(neurons, removed)):
            expected = model(images)
        assert expected.dtype == dtype
        torch.testing.assert_close(pruned(images), expected, rtol=0.02, atol=0.02)


def test_evaluating_restores_what_was_mixed():
    model = build("residual").train()
    model.norm1.eval()
    model.head.requires_grad_(False)
    with evaluating(model):
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
    assert [name for name, m in model.named_modules() if not m.training] == ["norm1"]
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == [
        "head.weight",
        "head.bias",
    ]
