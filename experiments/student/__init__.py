"""Trains small networks: the shared network, loop and export, and the two things that are trained with them.

``distill`` turns any fitted run into a student (`featbank distill`); ``shipped`` makes the student that the
package ships, from photographs and distortions (``python -m experiments.student.training``).
"""
