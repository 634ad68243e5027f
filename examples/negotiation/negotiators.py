"""Two agents that agree on a price by request and response, and a third that writes down what it hears."""

from __future__ import annotations

from phase21 import Context


async def buyer(ctx: Context, budget: int) -> dict[str, int]:
    """Offer more and more, until the seller agrees or the budget is spent."""
    price = budget // 2
    while price <= budget:
        answer = await ctx.request("seller", {"price": price}, deadline_s=10)
        ctx.progress(100 * price / budget, f"offered {price}: {answer.content['say']}")
        if answer.content["say"] == "sold":
            await ctx.shared.set("price", price, durable=True)
            await ctx.publish("deals", {"price": price})
            return {"price": price}
        price += answer.content["more"]
    raise ValueError("too dear")


def seller(ctx: Context, least: int) -> dict[str, str]:
    """Answer offers. It is a plain function: it runs in a thread, and waits where the others await."""
    while letter := ctx.receive(timeout_s=10):
        sold = letter.content["price"] >= least
        ctx.respond(letter, {"say": "sold"} if sold else {"say": "more", "more": 7})
        if sold:
            return {"sold_to": letter.sender}
    raise TimeoutError("nobody made an offer")


async def scribe(ctx: Context) -> list[dict[str, int]]:
    """Write down the first deal that is published."""
    await ctx.subscribe("deals")
    letter = await ctx.receive(timeout_s=10)
    return [letter.content] if letter else []
