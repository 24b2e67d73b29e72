"""The REST gateway: people who sign in with OpenID Connect ask questions without a key of their own."""
