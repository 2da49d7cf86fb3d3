"""Work in pieces: who runs them (`executors`), what a task is (`work`), the loop over tasks (`run`), what they all need
(`contexts`), the folder that keeps what is done (`run_folder`), and its files, which are no pickles (`packing`).

A task is a plain function of a context (a dataset, opened) and a few arguments; its result's file has its name from
them. Nothing here knows images. Nothing is imported here: a new process sets its threads before it imports torch.
"""
