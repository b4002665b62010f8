"""Say ten symbols again after a long delay: more than 20 bits.

Martens and Sutskever, "Learning recurrent neural networks with Hessian-free optimization", ICML (2011); Jaeger, "Long
short-term memory in echo state networks: details of a simulation study", technical report, Jacobs University Bremen
(2012); Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML (2013).
"""

from rnn_dynamics.tasks.pattern_recall import PatternRecall


class Memorization20Bit(PatternRecall):
    """Ten symbols, each one of five; inputs, targets and arguments are those of `PatternRecall`, K = 10, S = 5.

    The pattern holds 10 log2(5) = 23.2 bits. Of the forms that differ the same is taken as in `noiseless_memorization`.

    Chance: a pattern that is guessed is right once in 5^10. Solved: above 0.99, for a run succeeds if fewer than 1 % of
    10,000 sequences have an error (Pascanu et al. 2013). Known by: tanh networks with clipping and a regulariser
    succeed with delays of 50 to 200, one network for each (the same paper).
    """

    name = "memorization_20_bit"
    pattern_symbols = 5
    pattern_length = 10
