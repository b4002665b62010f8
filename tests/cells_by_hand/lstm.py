"""The LSTM and its relatives, each from its paper."""

import numpy as np

from cells_by_hand import blocks, sigmoid, values


def preactivations(cell, h, x):
    return [x @ wx + h @ wh + b for wx, wh, b in blocks(cell)]


def lstm(cell, carry, x):
    """Gers, Schmidhuber and Cummins 2000."""
    c, h = carry
    i, f, g, o = preactivations(cell, h, x)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return c, sigmoid(o) * np.tanh(c)


def forgetless(cell, carry, x):
    """Hochreiter and Schmidhuber 1997 with their squashing functions; their s_c and net_c are twice ours."""
    c, y = carry
    net_in, net_c, net_out = preactivations(cell, y, x)
    s_c = 2 * c + sigmoid(net_in) * (4 * sigmoid(2 * net_c) - 2)
    return s_c / 2, sigmoid(net_out) * (2 * sigmoid(s_c) - 1)


def coupled(cell, carry, x):
    """Greff et al. 2017, CIFG: f = 1 - i, their input gate being sigmoid(-f)."""
    c, y = carry
    f, z, o = preactivations(cell, y, x)
    i = sigmoid(-f)
    c = np.tanh(z) * i + c * (1 - i)
    return c, np.tanh(c) * sigmoid(o)


def peephole(cell, carry, x):
    """Greff et al. 2017, vanilla LSTM."""
    c, y = carry
    i, f, z, o = preactivations(cell, y, x)
    p_i, p_f, p_o = np.split(values(cell.peephole), 3)
    new = np.tanh(z) * sigmoid(i + p_i * c) + c * sigmoid(f + p_f * c)
    return new, np.tanh(new) * sigmoid(o + p_o * new)


def layer_norm(cell, carry, x):
    """Ba, Kiros and Hinton 2016, supplement; LN over the four gates side by side."""

    def ln(z, alpha, beta):
        return (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-5) * alpha + beta

    c, h = carry
    from_h = ln(h @ values(cell.recurrent_kernel), values(cell.recurrent_scale), 0)
    from_x = ln(x @ values(cell.kernel), values(cell.scale), values(cell.bias))
    i, f, g, o = np.split(from_h + from_x, 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return c, sigmoid(o) * np.tanh(ln(c, values(cell.readout_scale), values(cell.readout_bias)))


def janet(cell, c, x):
    """Van der Westhuizen and Lasenby 2018, beta = 1."""
    s, candidate = preactivations(cell, c, x)
    return sigmoid(s) * c + (1 - sigmoid(s - 1)) * np.tanh(candidate)


def slstm_with(forget_of):
    """Beck et al. 2024, equations 8-14, which know no m; it enters as the scale of c and n alone, by equation 15."""

    def slstm(cell, carry, x):
        c, n, m, h = carry
        i, f, z, o = preactivations(cell, h, x)
        whole_c = forget_of(f) * c * np.exp(m) + np.exp(i) * np.tanh(z)
        whole_n = forget_of(f) * n * np.exp(m) + np.exp(i)
        m = np.maximum(np.log(forget_of(f)) + m, i)
        return whole_c * np.exp(-m), whole_n * np.exp(-m), m, sigmoid(o) * whole_c / whole_n

    return slstm


BY_HAND = {
    "ForgetlessLSTMCell": forgetless,
    "LSTMCell": lstm,
    "CoupledLSTMCell": coupled,
    "PeepholeLSTMCell": peephole,
    "LayerNormLSTMCell": layer_norm,
    "JANETCell": janet,
    "SLSTMCell": slstm_with(sigmoid),
    "ExponentialSLSTMCell": slstm_with(np.exp),
}
