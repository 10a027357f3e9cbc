"""Evaluation of saved predictions: accuracy and calibration."""
