"""What is known of a run: stages in the cluster and in the store, logs, and diagnoses."""
