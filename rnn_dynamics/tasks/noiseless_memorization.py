"""Say five bits again after a long delay.

Martens and Sutskever, "Learning recurrent neural networks with Hessian-free optimization", ICML (2011); the "5-bit
memory task" of Jaeger, "Long short-term memory in echo state networks: details of a simulation study", technical
report, Jacobs University Bremen (2012).
"""

from rnn_dynamics.tasks.pattern_recall import PatternRecall


class NoiselessMemorization(PatternRecall):
    """Five symbols, each one of two; inputs, targets and arguments are those of `PatternRecall`, K = 5, S = 2.

    As in Martens and Sutskever's code the cue comes before the first answer; in that of Pascanu, Mikolov and Bengio
    (2013) it comes with it. There are 32 sequences, so training sees all that can be tested.

    Chance: a pattern that is guessed is right once in 2^5, 1/32. Solved: above 0.99, for a run succeeds if fewer than
    1 % of 10,000 sequences have an error (Pascanu et al. 2013). Known by: tanh networks with clipping and a regulariser
    succeed with delays of 50 to 200, one network for each (the same paper).
    """

    name = "noiseless_memorization"
    pattern_symbols = 2
    pattern_length = 5
