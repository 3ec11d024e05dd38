from .classifier_reuse import (
    reuse_classifier as reuse_classifier,
)
