"""Share of the labels that answers name which the reference names too (micro)."""

from thinktune.tasks.evaluate.metrics.label_f1 import label_share

METRIC = label_share("label_precision", 13, "Precision of labels, micro", missed=1)
