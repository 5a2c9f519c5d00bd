"""The char-CNN-RNN against slow references written from the CVPR 2016 description."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import t2i
from t2i.ops.one_hot_convolution import one_hot_convolution, reference
from t2i.text.char_cnn_rnn import GatedRecurrence, ReluRecurrence

CAPTIONS = ["a flower with five red petals", "", "Purple; 10 stamens -- (rare)!", "x" * 300, "caf\u00e9 \u82b1"]


def test_relu_recurrence_has_no_hidden_bias_in_its_first_step():
    torch.manual_seed(0)
    layer, x = ReluRecurrence(5).double(), torch.randn(3, 4, 5).double()
    h = torch.relu(x[:, 0] @ layer.input.weight.T + layer.input.bias)
    expected = [h]
    for step in range(1, 4):
        h = torch.relu(layer.input(x[:, step]) + h @ layer.hidden.weight.T + layer.hidden.bias)
        expected.append(h)
    torch.testing.assert_close(layer(x), torch.stack(expected, 1))


def test_gated_recurrence_resets_before_the_hidden_map_and_mixes_as_released():
    torch.manual_seed(0)
    layer, x = GatedRecurrence(5).double(), torch.randn(3, 4, 5).double()
    h = torch.tanh(layer.input(x[:, 0]))
    expected = [h]
    for step in range(1, 4):
        update = torch.sigmoid(layer.input_update(x[:, step]) + layer.hidden_update(h))
        reset = torch.sigmoid(layer.input_reset(x[:, step]) + layer.hidden_reset(h))
        candidate = torch.tanh(layer.input(x[:, step]) + layer.hidden(reset * h))
        h = update * candidate + (1 - update) * h
        expected.append(h)
    torch.testing.assert_close(layer(x), torch.stack(expected, 1))


@pytest.mark.parametrize(("variant", "steps"), [("short", 8), ("long", 18)])
def test_the_recurrence_sees_as_many_steps_as_the_paper_says(variant, steps):
    net = t2i.CharCnnRnn(variant, 16, 12, (8, 8))
    seen = []
    net.recurrence.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    net(torch.from_numpy(t2i.encode(CAPTIONS)))
    assert seen == [(len(CAPTIONS), steps, 16)]


@pytest.mark.parametrize("variant", ["short", "long"])
def test_ids_and_one_hot_give_the_same_embedding(variant):
    torch.manual_seed(0)
    net = t2i.CharCnnRnn(variant, 16, 12, (8, 8)).double()
    ids = t2i.encode(CAPTIONS)
    one_hot = torch.from_numpy(t2i.one_hot(ids)).double()
    torch.testing.assert_close(net(torch.from_numpy(ids)), net(one_hot))


def test_gathered_convolution_equals_the_one_hot_one_and_so_do_its_gradients():
    torch.manual_seed(0)
    ids = torch.from_numpy(t2i.encode(CAPTIONS))
    weight = torch.randn(6, 70, 4, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(6, dtype=torch.float64, requires_grad=True)
    fast, slow = one_hot_convolution(ids, weight, bias), reference(ids, weight, bias)
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-12)
    direction = torch.randn_like(slow)
    for one, other in zip(
        torch.autograd.grad(fast, (weight, bias), direction),
        torch.autograd.grad(slow, (weight, bias), direction),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_an_unknown_character_is_a_column_of_zeros_and_not_the_end():
    ids = t2i.encode(["a\u00e9b"])
    one_hot = t2i.one_hot(ids)
    assert one_hot[0, :, 1].sum() == 0
    assert one_hot[0, 1, 2] == 1
    assert np.count_nonzero(ids) == 3


def test_threshold_is_the_lua_default_and_not_a_relu():
    net = t2i.CharCnnRnn("short", 4, 4, (4, 4))
    x = torch.tensor([1e-7, 1e-6, 2e-6])
    assert F.threshold(x, 1e-6, 0.0).tolist() == [0.0, 0.0, pytest.approx(2e-6)]
    with torch.no_grad():
        net.convolution1.weight.zero_()
        net.convolution1.bias.fill_(5e-7)  # would pass a ReLU
    seen = []
    net.convolution2.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].abs().max().item()))
    net(torch.from_numpy(t2i.encode(["a"])))
    assert seen == [0.0]


def test_initial_weights_of_the_joint_embedding_are_uniform():
    torch.manual_seed(0)
    net = t2i.CharCnnRnn(width=64)
    net.initialise()
    everything = torch.cat([weight.flatten() for weight in net.parameters()])
    assert everything.abs().max() <= 0.08
    assert abs(everything.std().item() - 0.08 / 3**0.5) < 1e-3


def test_an_unknown_variant_is_refused_by_name():
    with pytest.raises(t2i.ConfigError, match="medium"):
        t2i.CharCnnRnn("medium")
