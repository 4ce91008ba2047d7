"""What is computed: volumes, segmentation and scores. No scheduler, no process, no cluster."""
