"""Two commits of this repository in turns: has the speed changed?"""
