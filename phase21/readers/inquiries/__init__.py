"""Those who look back when somebody asks: why, what if, how well. The verbs ask them; the service that runs knows none of them."""
