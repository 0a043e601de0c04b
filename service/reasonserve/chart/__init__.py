"""The Helm chart's values as typed data, from which its schema, values file and README are written."""
