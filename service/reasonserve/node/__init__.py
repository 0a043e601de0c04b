"""What runs in a cluster's pods beside controller, Ray and the front."""
