def metric_fidelity(): pass
def metric_class_agreement(): pass
