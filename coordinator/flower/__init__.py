"""The Flower side of the coordinator: SuperLink, fleet gateway, ServerApp."""
