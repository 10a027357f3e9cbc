"""The table of the methods that a study can compare, with their options."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch

from labelsmooth import priors, schedules
from labelsmooth._core.checks import Interval
from labelsmooth._modules.losses import CrossEntropyLoss, LabelSmoothingLoss
from labelsmooth._modules.online import OnlineLabelSmoothing
from labelsmooth.formulas import (
    BackwardCorrection,
    ConfidencePenalty,
    Focal,
    ForwardCorrection,
    LabelRelaxation,
    MarginSmoothing,
    MaxSup,
    NegativeSmoothing,
)
from labelsmooth.priors import Distance
from labelsmooth.schedules import Shape
from labelsmooth.study.arms.expressions import Call, Fact, Share, call
from labelsmooth.study.arms.options import Above, Choice, Number, Option
from labelsmooth.study.arms.recipes import Bootstrap, Graduated

Grade = Literal["A", "B", "C", "D"]

GRADES: Mapping[Grade, str] = {
    "A": "several independent confirmations",
    "B": "the authors and at least one independent run",
    "C": "the authors only",
    "D": "independent runs contradict or explain the effect",
}

NUM_CLASSES, EPOCHS = Fact("num_classes"), Fact("epochs")
COUNTS, EMBEDDINGS = Fact("counts"), Fact("embeddings")

AT_LEAST_0, ABOVE_0 = Interval(0, math.inf), Above(0, math.inf)
EPS = Number(0.1)
FAMILIES: Mapping[str, Callable[..., priors.Prior]] = {
    "exponential": priors.exponential,
    "triangular": priors.triangular,
    "binomial": priors.binomial,
    "beta": priors.beta,
}


@dataclass(frozen=True)
class Method:
    """A row of the table."""

    loss: Callable[..., Call]  # from the options to the expression of the loss
    formula: str
    purpose: str
    grade: Grade
    source: str
    options: Mapping[str, Option] = field(default_factory=lambda: {"eps": EPS})


def _smoothing(eps: object, **options: object) -> Call:
    return call(CrossEntropyLoss, label_smoothing=eps, **options)


def _rising(eps: float, end: float | None) -> object:
    """A strength that changes linearly to ``end`` over all epochs if ``end`` is given."""
    return eps if end is None else call(schedules.linear, eps, end, EPOCHS)


def _ordinal(kind: str) -> Call:
    if kind in FAMILIES:
        return call(FAMILIES[kind], NUM_CLASSES)
    return call(priors.sord, NUM_CLASSES, kind)


ARMS: Mapping[str, Method] = {
    "hard": Method(
        lambda: _smoothing(0.0),
        "CE = lse(z) - z_y",
        "comparison: no smoothing",
        "A",
        "cross entropy",
        {},
    ),
    "ls": Method(
        lambda eps: _smoothing(eps),
        "(1-eps) CE + eps mean_k(-log q_k)",
        "many classes, fine distinctions, sequences",
        "A",
        "Szegedy et al., CVPR 2016",
    ),
    "others": Method(
        lambda eps: _smoothing(eps, off_target="others"),
        "(1-eps) CE + eps mean_{k != y}(-log q_k)",
        "as ls, in the convention of fairseq and Megatron: somewhat stronger",
        "A",
        "Vaswani et al., NeurIPS 2017",
    ),
    "kl": Method(
        lambda eps: call(LabelSmoothingLoss, smoothing=eps),
        "KL(p || q), p = (1-eps) e_y + eps/K",
        "as ls, minus the entropy of the target: the same gradient",
        "A",
        "Szegedy et al., CVPR 2016",
    ),
    # Over time.
    "linear": Method(
        lambda start, end: _smoothing(call(schedules.linear, start, end, EPOCHS)),
        "ls, eps linear from start to end",
        "as ls; gains as much as MaxSup in that paper's ablation",
        "C",
        "Zhou et al., NeurIPS 2025",
        {"start": Number(0.1), "end": Number(0.2)},
    ),
    "cosine": Method(
        lambda start, end: _smoothing(call(schedules.cosine, start, end, EPOCHS)),
        "ls, eps from start to end along half a cosine wave",
        "smoothing early, and hard targets at the end",
        "C",
        "Loshchilov and Hutter, ICLR 2017",
        {"start": Number(0.2), "end": Number(0.0)},
    ),
    "warmup": Method(
        lambda eps, share: _smoothing(call(schedules.warm_up, eps, Share(share, EPOCHS))),
        "ls, eps linear from 0 over a share of the epochs",
        "learning from hard targets first",
        "C",
        "Goyal et al., 2017",
        {"eps": EPS, "share": Number(0.25)},
    ),
    "droplate": Method(
        lambda eps, share: _smoothing(call(schedules.drop_late, eps, Share(share, EPOCHS))),
        "ls, eps = 0 after a share of the epochs",
        "smoothing early, and hard targets later (TSLA)",
        "C",
        "Xu et al., 2020",
        {"eps": EPS, "share": Number(0.5)},
    ),
    # Toward other priors.
    "unigram": Method(
        lambda eps, temperature: _smoothing(eps, prior=call(priors.unigram, COUNTS, temperature=temperature)),
        "(1-eps) CE + eps <pi, -log q>, pi ~ counts^(1/T)",
        "classes of unequal frequency, vocabularies",
        "B",
        "Pereyra et al., 2017",
        {"eps": EPS, "temperature": Number(1.0, ABOVE_0)},
    ),
    "ordinal": Method(
        lambda eps, kind: _smoothing(eps, prior=_ordinal(kind)),
        "(1-eps) CE + eps <pi_y, -log q>, pi_y(k) falls with |k - y|",
        "ordered classes: ages, grades, ratings",
        "A",
        "Diaz and Marathe, CVPR 2019",
        {
            "eps": Number(1.0),
            "kind": Choice((*get_args(Distance), *FAMILIES)),
        },
    ),
    "hierarchy": Method(
        lambda eps, beta: _smoothing(
            eps, prior=call(priors.hierarchy, call(torch.cdist, EMBEDDINGS, EMBEDDINGS), beta=beta)
        ),
        "(1-eps) CE + eps <pi_y, -log q>, pi_y(k) ~ exp(-beta d(k, y) / max d)",
        "less severe mistakes, at some cost in accuracy",
        "B",
        "Bertinetto et al., CVPR 2020",
        {"eps": Number(1.0), "beta": Number(10.0, AT_LEAST_0)},
    ),
    "similarity": Method(
        lambda eps, temperature: _smoothing(
            eps, prior=call(priors.embedding, EMBEDDINGS, temperature=temperature), off_target="others"
        ),
        "(1-eps) CE + eps <pi_y, -log q>, pi_y(k) ~ exp(cos(e_y, e_k) / T), k != y",
        "classes of different similarity",
        "C",
        "Liu and JaJa, ICANN 2021",
        {"eps": EPS, "temperature": Number(0.1, ABOVE_0)},
    ),
    "bootstrap": Method(
        lambda eps: call(Bootstrap, eps=eps),
        "(1-eps) CE + eps H(q', q), q' = q without gradient",
        "label noise: a part of the target is the model's prediction",
        "B",
        "Reed et al., ICLR workshop 2015",
        {"eps": Number(0.05)},
    ),
    "ols": Method(
        lambda eps: call(OnlineLabelSmoothing, NUM_CLASSES, label_smoothing=eps),
        "(1-eps) CE + eps <S_y, -log q>, S_y = mean right q in the epoch before",
        "as ls, toward the mean prediction for each class",
        "B",
        "Zhang et al., TIP 2021",
        {"eps": Number(0.5)},
    ),
    # Per class, per sample.
    "byclass": Method(
        lambda head, tail, shape: _smoothing(
            call(schedules.by_counts, COUNTS, head=head, tail=tail, shape=shape)
        ),
        "ls, eps_y from tail (rarest class) to head (most frequent)",
        "long-tailed data (the published gains are those of a two-stage training)",
        "C",
        "Zhong et al., CVPR 2021",
        {"head": Number(0.2), "tail": Number(0.0), "shape": Choice(get_args(Shape))},
    ),
    "graduated": Method(
        lambda **options: call(Graduated, **options),
        "ls, eps_i by confidence: 0 below low, sure above high",
        "smoothing confident samples, as in translation",
        "C",
        "Wang et al., ACL 2020",
        {"eps": EPS, "sure": Number(0.3), "low": Number(0.3), "high": Number(0.7)},
    ),
    # Other formulas.
    "negative": Method(
        lambda eps, clip, share: _smoothing(
            call(schedules.delayed, eps, Share(share, EPOCHS)), formula=call(NegativeSmoothing, clip=clip)
        ),
        "CE + eps min(z_y - mean z, clip), eps < 0, after a share of the epochs",
        "label noise of 40 % and more",
        "B",
        "Wei et al., ICML 2022",
        {
            "eps": Number(-0.4, NegativeSmoothing.strengths),
            "clip": Number(5.0, ABOVE_0),
            "share": Number(0.5),
        },
    ),
    "maxsup": Method(
        lambda eps, end: _smoothing(_rising(eps, end), formula=call(MaxSup)),
        "CE + eps (max z - mean z)",
        "as ls, also for wrong predictions; the authors use eps=0.1,end=0.2",
        "C",
        "Zhou et al., NeurIPS 2025",
        {"eps": Number(0.1, MaxSup.strengths), "end": Number(None, MaxSup.strengths)},
    ),
    "mbls": Method(
        lambda eps, margin: _smoothing(eps, formula=call(MarginSmoothing, margin=margin)),
        "CE + eps mean_k max(0, max z - z_k - margin)",
        "calibration, without effect on logits within the margin",
        "B",
        "Liu et al., CVPR 2022",
        {"eps": Number(0.1, MarginSmoothing.strengths), "margin": Number(10.0, AT_LEAST_0)},
    ),
    "mbls2": Method(
        lambda eps, margin: _smoothing(eps, formula=call(MarginSmoothing, margin=margin, squared=True)),
        "CE + eps mean_k max(0, max z - z_k - margin)^2",
        "as mbls, with a penalty that grows with the distance",
        "C",
        "after Park et al., ICCV 2023",
        {"eps": Number(0.1, MarginSmoothing.strengths), "margin": Number(10.0, AT_LEAST_0)},
    ),
    "cp": Method(
        lambda eps, threshold: _smoothing(eps, formula=call(ConfidencePenalty, threshold=threshold)),
        "CE - eps H(q), or CE + eps max(0, threshold - H(q))",
        "as ls, through the model's entropy; the strength depends on the task",
        "B",
        "Pereyra et al., 2017",
        {
            "eps": Number(0.1, ConfidencePenalty.strengths),
            "threshold": Number(None, ABOVE_0),
        },
    ),
    "relaxation": Method(
        lambda eps: _smoothing(eps, formula=call(LabelRelaxation)),
        "0 if q_y >= 1-eps, else KL to the nearest target with p_y = 1-eps",
        "no penalty once the label has probability 1-eps",
        "B",
        "Lienen and Hüllermeier, AAAI 2021",
    ),
    "focal": Method(
        lambda gamma: call(CrossEntropyLoss, formula=call(Focal, gamma=gamma)),
        "(1 - q_y)^gamma CE",
        "comparison: improves calibration without smoothing",
        "A",
        "Mukhoti et al., NeurIPS 2020",
        {"gamma": Number(3.0, AT_LEAST_0)},
    ),
    "forward": Method(
        lambda eps: _smoothing(eps, formula=call(ForwardCorrection)),
        "-log((1-eps) q_y + eps/K)",
        "label noise, a share eps (K-1)/K of all labels",
        "B",
        "Patrini et al., CVPR 2017",
    ),
    "backward": Method(
        lambda eps: _smoothing(eps, formula=call(BackwardCorrection)),
        "CE - eps/(1-eps) (z_y - mean z)",
        "label noise, without bias; unbounded below, so only for small eps",
        "B",
        "Patrini et al., CVPR 2017",
        {"eps": Number(0.1, BackwardCorrection.strengths)},
    ),
}
