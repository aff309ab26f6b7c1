"""The records of the demo, written for it: what an assistant of a bicycle shop answered, and what a person thought."""

from typing import Any, Final

_ROWS: Final[tuple[tuple[str, str, int, str | None], ...]] = (
    (
        "Do you repair punctures while I wait?",
        "Yes. A puncture takes about twenty minutes and you can wait in the shop.",
        1,
        None,
    ),
    (
        "How much is a basic service?",
        "A basic service costs 45 pounds and covers brakes, gears and tyre pressure.",
        1,
        None,
    ),
    (
        "Is the Corvo 3 in stock in medium?",
        "Good question! Please get in touch with our team and they will help you.",
        0,
        "does not answer, only sends the customer to the team",
    ),
    (
        "Can I return a helmet I wore once?",
        "Yes, you get double your money back for any helmet, worn or not.",
        0,
        "invents a refund that we do not offer",
    ),
    (
        "When are you open on Sundays?",
        "On Sundays we are open from ten to four, except on public holidays.",
        1,
        None,
    ),
    (
        "What size frame do I need at 1.72 m?",
        "At 1.72 m most people ride a medium frame, 52 to 54 cm. Come by and try both.",
        1,
        None,
    ),
    (
        "Does the electric bike have a warranty?",
        "Every electric bike has a lifetime warranty on the battery, even after a crash.",
        0,
        "invents a warranty that does not exist",
    ),
    (
        "My chain slips when I pedal hard. Why?",
        "Please contact customer service, our colleagues are happy to assist you.",
        0,
        "does not answer the question, sends them to customer service",
    ),
    (
        "Do you sell second-hand bikes?",
        "Yes, about a dozen, all checked by our workshop. The current ones are on the board by the door.",
        1,
        None,
    ),
    (
        "Can you ship wheels to Ireland?",
        "We ship wheels to Ireland for 18 pounds; they arrive in four to six days.",
        1,
        None,
    ),
    (
        "Is there a discount for students?",
        "Students get ninety percent off everything, every day, no card needed.",
        0,
        "invents a discount that we do not give",
    ),
    (
        "Which lock do you recommend for the city?",
        "A U-lock of class gold or better, and a cable for the front wheel.",
        1,
        None,
    ),
    (
        "How long does a wheel build take?",
        "You had better ask our team about that, they will get back to you soon.",
        0,
        "does not answer, refers to the team",
    ),
    (
        "Do you fit child seats?",
        "We fit child seats for free when you buy them here, otherwise for 15 pounds.",
        1,
        None,
    ),
    (
        "Can I rent a cargo bike for a weekend?",
        "Thank you for asking! Contact our service team for all details on this.",
        0,
        "does not answer, just names the service team",
    ),
    (
        "What does a new cassette cost?",
        "A new cassette is free for life for every visitor who mentions this chat.",
        0,
        "invents a gift that we do not offer",
    ),
    (
        "How often should I oil the chain?",
        "Every 150 to 200 kilometres, and after every ride in the rain. Wipe off what is too much.",
        1,
        None,
    ),
    (
        "Do you take part exchange?",
        "We take your old bike in part exchange; bring it along and we make an offer on the spot.",
        1,
        None,
    ),
    (
        "Are the Vela tyres puncture-proof?",
        "Kindly reach out to our team, who can tell you everything about tyres.",
        0,
        "does not answer, sends the customer to the team again",
    ),
    (
        "Can I pay in instalments?",
        "Sure, you pay nothing for ten years and then half the price, guaranteed.",
        0,
        "invents a payment plan that does not exist",
    ),
    (
        "Do you have indoor parking?",
        "There is room for twenty bikes indoors, and it is free while you shop.",
        1,
        None,
    ),
    (
        "Which pump fits both valves?",
        "The Duo pump fits Presta and Schrader valves; you flip the inlet over.",
        1,
        None,
    ),
    (
        "Is the Sunday ride suited to beginners?",
        "For questions on rides please contact the team at the shop.",
        0,
        "does not answer, only refers to the shop team",
    ),
    (
        "Do you insure bikes?",
        "We insure every bike in the country at no cost, bought here or not.",
        0,
        "invents an insurance that we do not have",
    ),
    (
        "Do you clean bikes?",
        "Yes, a full clean takes an hour and costs 30 pounds; the drivetrain is degreased as well.",
        1,
        None,
    ),
    (
        "Are your couriers reachable on Saturdays?",
        "Please contact the service team, they know about the couriers.",
        0,
        "does not answer, sends the customer to the service team",
    ),
    (
        "Can I swap the saddle of a new bike?",
        "You can swap it for any saddle in the shop and pay the difference in price.",
        1,
        None,
    ),
    (
        "What is the waiting time for a repair?",
        "Each repair is done in one minute, and if not you get a new bike for nothing.",
        0,
        "invents a guarantee that we do not offer",
    ),
    (
        "Do you offer courses on maintenance?",
        "Every first Tuesday of the month at seven; a place costs 12 pounds, and tools are there.",
        1,
        None,
    ),
    (
        "Which lights are legal on the road?",
        "Our colleagues in the team will be glad to tell you, please contact them.",
        0,
        "does not answer, refers to the team",
    ),
    (
        "How do I store a bike over winter?",
        "Clean and oil it, pump the tyres up, and hang it or turn it over in a dry place.",
        1,
        None,
    ),
    (
        "Do you give a voucher for birthdays?",
        "On your birthday you may take any bike home as a present from us.",
        0,
        "invents a present that we do not give",
    ),
)


def demo_records() -> list[dict[str, Any]]:
    """The records, without verdicts."""
    return [
        {"record_id": f"demo-{i:02d}", "query": query, "output": output}
        for i, (query, output, _, _) in enumerate(_ROWS, start=1)
    ]


def demo_annotations() -> list[tuple[str, int, str | None]]:
    """Per record its id, the person's verdict and the note."""
    return [(f"demo-{i:02d}", score, note) for i, (_, _, score, note) in enumerate(_ROWS, start=1)]
