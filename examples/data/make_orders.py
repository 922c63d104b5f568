"""Makes `orders.csv`: the same file every time. `python examples/data/make_orders.py > examples/data/orders.csv`."""

import csv
import random
import sys
from datetime import date, timedelta

CUSTOMERS = (
    ("Zoë Müller", "Deutschland"),
    ("Jürgen Groß", "Deutschland"),
    ("Ana Sofía Núñez", "España"),
    ("Íñigo Etxebarria", "España"),
    ("Chloé Lefèvre", "France"),
    ("François d'Aubigné", "France"),
    ("Seán O'Brien", "Éire"),
    ("Aoife Ní Bhriain", "Éire"),
    ("Łukasz Wójcik", "Polska"),
    ("Małgorzata Żak", "Polska"),
    ("İpek Yılmaz", "Türkiye"),
    ("Αλέξανδρος Παππάς", "Ελλάδα"),
    ("山田 花子", "日本"),
    ("佐藤 健", "日本"),
    ("Nguyễn Thị Hương", "Việt Nam"),
    ("João Conceição", "Brasil"),
    ("Søren Kjærgård", "Danmark"),
    ("Åsa Lindström", "Sverige"),
    ("Þórunn Jónsdóttir", "Ísland"),
    ("Aya Konaté", "Côte d'Ivoire"),
    ("Maria Rossi", "Italia"),
    ("Ada Smith, Ltd.", "United Kingdom"),
    ("Jiří Dvořák", "Česko"),
    ("김민준", "대한민국"),
)
ITEMS = (
    ("espresso machine", 28_900),
    ("coffee grinder", 11_950),
    ("café filter papers, 100", 499),
    ("pour-over kettle", 6_490),
    ("milk jug", 1_890),
    ("tamper", 3_450),
    ("decaf beans, 1 kg", 2_290),
    ("house blend, 1 kg", 1_990),
    ("descaler", 899),
    ("porcelain cup", 1_250),
)
ORDERS = 420


def main() -> None:
    """Write the file to standard output."""
    chance = random.Random("aion")
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(
        (
            "order_id",
            "ordered_on",
            "customer",
            "country",
            "item",
            "quantity",
            "amount",
            "card",
            "approval",
        )
    )
    for number in range(ORDERS):
        customer, country = chance.choices(CUSTOMERS, (4, *(1,) * (len(CUSTOMERS) - 1)))[0]
        if customer == "Zoë Müller" and chance.random() < 0.3:
            country = "Österreich"  # some go to her other address
        item, cents = chance.choice(ITEMS)
        quantity = chance.choice((1, 1, 1, 2, 2, 3, 6))
        amount = cents * quantity
        card = chance.choices(("ok", "flaky", "refused"), (80, 12, 8))[0]
        approval = "yes" if amount >= 50_000 else ""
        day = date(2026, 11, 2) + timedelta(days=number // 60)
        row = (f"A-{1001 + number}", day, customer, country, item, quantity)
        out.writerow((*row, f"{amount // 100}.{amount % 100:02}", card, approval))


if __name__ == "__main__":
    main()
