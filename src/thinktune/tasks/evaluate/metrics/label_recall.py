"""Share of the reference's labels that answers name (micro)."""

from thinktune.tasks.evaluate.metrics.label_f1 import label_share

METRIC = label_share("label_recall", 14, "Recall of labels, micro", missed=2)
