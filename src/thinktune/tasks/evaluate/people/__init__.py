"""What people say of a run's answers: `sheet` writes sheets to be rated, `ratings` reads them back,
`agreement` compares a judge's verdicts with people's.

Each of the three is a program that the command line runs.
"""
