"""Who visits: made-up companies and people, in real cities, with the browsers of today. Everything follows from a seed.

Names are invented, domains are reserved ones, and addresses are of the blocks that are set aside for documentation.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate
from typing import Literal, NamedTuple

from leadboxer_source.sandbox.chance import Dice

Kind = Literal["unidentified", "company", "person"]


class Place(NamedTuple):
    """A city. The offset is that of its winter, in hours."""

    city: str
    postal_code: str
    region: str
    region_code: str
    country: str
    code: str
    latitude: str
    longitude: str
    timezone: str
    utc_offset: str


class Company(NamedTuple):
    """An organization that visitors come from."""

    name: str
    domain: str
    city: str
    naics_code: str
    industry: str
    sector: str
    employees: str
    sales: str


class Device(NamedTuple):
    """A browser on an operating system on a screen."""

    browser: str
    version: str
    platform: str
    width: str
    height: str
    colors: str
    agent: str


class Person(NamedTuple):
    """Somebody who left a name; customers have a plan."""

    first_name: str
    last_name: str
    email: str
    job: str
    tags: str
    plan: str


class Visitor(NamedTuple):
    """Who a user is. One who is hostile sends properties that are hard to load."""

    seed: int
    number: int
    hostile: bool
    kind: Kind
    place: Place
    device: Device
    ip: str
    provider: str
    company: Company | None
    person: Person | None


def _rows(text: str) -> list[list[str]]:
    return [line.split("|") for line in text.strip().splitlines()]


_PLACES = [
    Place(*row)
    for row in _rows("""
Utrecht|3511|Utrecht|UT|Netherlands|NL|52.09083|5.12222|Europe/Amsterdam|1
Amsterdam|1012|North Holland|NH|Netherlands|NL|52.37403|4.88969|Europe/Amsterdam|1
Rotterdam|3011|South Holland|ZH|Netherlands|NL|51.9225|4.47917|Europe/Amsterdam|1
Duesseldorf|40545|North Rhine-Westphalia|NW|Germany|DE|51.22172|6.77616|Europe/Berlin|1
Hamburg|20095|Hamburg|HH|Germany|DE|53.55073|9.99302|Europe/Berlin|1
Antwerp|2000|Flanders|VLG|Belgium|BE|51.22047|4.40026|Europe/Brussels|1
Manchester|M1|England|ENG|United Kingdom|GB|53.48095|-2.23743|Europe/London|0
London|EC1A|England|ENG|United Kingdom|GB|51.50853|-0.12574|Europe/London|0
Lyon|69001|Auvergne-Rhone-Alpes|ARA|France|FR|45.74846|4.84671|Europe/Paris|1
Madrid|28001|Madrid|MD|Spain|ES|40.4165|-3.70256|Europe/Madrid|1
Milan|20121|Lombardy|25|Italy|IT|45.46427|9.18951|Europe/Rome|1
Copenhagen|1050|Capital Region|84|Denmark|DK|55.67594|12.56553|Europe/Copenhagen|1
Chicago|60602|Illinois|IL|United States|US|41.87577|-87.6206|America/Chicago|-6
Boston|02108|Massachusetts|MA|United States|US|42.35843|-71.05977|America/New_York|-5
Toronto|M5H|Ontario|ON|Canada|CA|43.70011|-79.4163|America/Toronto|-5
Singapore|048616|Central Singapore|01|Singapore|SG|1.28967|103.85007|Asia/Singapore|8
""")
]
_PLACES_PASSED = tuple(accumulate((14, 20, 10, 9, 7, 7, 4, 9, 3, 3, 3, 3, 4, 3, 2, 1)))
_BY_CITY = {place.city: place for place in _PLACES}

# most visitors come from the first of them
_COMPANIES = [
    Company(*row)
    for row in _rows("""
Example Widgets GmbH|widgets.example|Duesseldorf|332710|Machine Shops|Industrials|240|10-50M
Sample Foods BV|samplefoods.example|Utrecht|311991|Perishable Prepared Food|Consumer Goods|85|5-10M
Quillmarsh Logistics BV|quillmarsh.example|Rotterdam|488510|Freight Arrangement|Transportation|1150|100-500M
Placeholder & Partners Ltd|placeholder.example|London|541611|Management Consulting|Business Services|38|1-5M
Instance Cloud Inc|instancecloud.example|Boston|541512|Computer Systems Design|Technology|420|50-100M
Vantrelle Energie SA|vantrelle.example|Lyon|221118|Electric Power Generation|Energy|2600|500M-1B
Tervoort Specimen NV|tervoort-specimen.example|Antwerp|325412|Pharmaceutical Preparation|Healthcare|760|100-500M
Nordhavn Eksempel ApS|nordhavn-eksempel.example|Copenhagen|541310|Architectural Services|Construction|27|1-5M
Brindlewick Tools Ltd|brindlewick.example|Manchester|423710|Hardware Wholesalers|Industrials|64|5-10M
Lakeshore Example Insurance|lakeshore.example|Chicago|524126|Property Insurance|Financials|3900|1B+
Muster Elektronik AG|muster-elektronik.example|Hamburg|334413|Semiconductors|Technology|510|50-100M
Ejemplo Viajes SL|ejemploviajes.example|Madrid|561510|Travel Agencies|Consumer Services|12|0-1M
Grachtzicht Media BV|grachtzicht.example|Amsterdam|541810|Advertising Agencies|Media|45|5-10M
Campione Tessuti SpA|campione-tessuti.example|Milan|313210|Fabric Mills|Consumer Goods|190|10-50M
Maplefold Learning Corp|maplefold.example|Toronto|611420|Computer Training|Education|8|0-1M
Kestrelbay Shipping Pte Ltd|kestrelbay.example|Singapore|483111|Deep Sea Freight|Transportation|330|50-100M
""")
]
_COMPANIES_PASSED = tuple(accumulate(1 / (rank + 2) for rank in range(len(_COMPANIES))))
_OFFICES = {company.domain: f"198.51.100.{10 + 12 * place}" for place, company in enumerate(_COMPANIES)}

_ENGINES = {
    "BLINK": "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/149.0.0.0",
    "WEBKIT": "AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.4",
}
_DEVICES = [
    Device(*row)._replace(agent=" ".join(["Mozilla/5.0", *(_ENGINES.get(word, word) for word in row[-1].split())]))
    for row in _rows("""
Chrome|149.0.0.0|Windows 10|1920|1080|24|(Windows NT 10.0; Win64; x64) BLINK Safari/537.36
Chrome|149.0.0.0|Windows 10|1536|864|24|(Windows NT 10.0; Win64; x64) BLINK Safari/537.36
Edge|149.0.0.0|Windows 10|1920|1200|24|(Windows NT 10.0; Win64; x64) BLINK Safari/537.36 Edg/149.0.0.0
Chrome|149.0.0.0|Intel Mac OS X 10.15.7|1728|1117|30|(Macintosh; Intel Mac OS X 10_15_7) BLINK Safari/537.36
Safari|26.4|Intel Mac OS X 10.15.7|1512|982|30|(Macintosh; Intel Mac OS X 10_15_7) WEBKIT Safari/605.1.15
Firefox|152.0|Windows 10|2560|1440|24|(Windows NT 10.0; Win64; x64; rv:152.0) Gecko/20100101 Firefox/152.0
Firefox|152.0|Linux x86_64|2560|1440|24|(X11; Linux x86_64; rv:152.0) Gecko/20100101 Firefox/152.0
Safari|26.4|iOS 18.7|393|852|24|(iPhone; CPU iPhone OS 18_7 like Mac OS X) WEBKIT Mobile/15E148 Safari/604.1
Chrome|149.0.0.0|Android 10|412|915|24|(Linux; Android 10; K) BLINK Mobile Safari/537.36
""")
]
_DEVICES_PASSED = tuple(accumulate((22, 16, 14, 12, 7, 7, 4, 10, 8)))

# Ada is kept for the first person of every world: examples name her
_FIRST_NAMES = [
    name
    for row in _rows("""
Anna|Bram|Carla|Daan|Elena|Femke|Giulia|Hanna|Ines|Jonas|Karin|Lars|Maria|Nils|Olga|Pieter|Rosa|Sanne|Thomas|Ursula
Victor|Wendy|Yara|Zoe|Arjun|Chloe|Diego|Emma|Felix|Grace|Hugo|Iris|Jack|Kim|Leon|Mila|Noor|Oscar|Priya|Ruben
""")
    for name in row
]
_LAST_NAMES = [
    name
    for row in _rows("""
Aldering|Bakker|Castell|Dekker|Engel|Faber|Garnier|Holm|Ibsen|Jansen|Keller|Lindqvist|Marchetti|Novak|Okafor|Peeters
Quint|Ritter|Santos|Tanaka|Ubels|Verhoef|Winter|Ypma|Zeller|Ashby|Brandt|Collier|Duarte|Eriksen|Fontana|Greer|Haas
Iversen|Joshi|Kramer|Lambert|Meyer|Nowak|Olsen|Pereira|Rademaker|Schuster|Thorne|Ulrich|Visser|Weber|Young
""")
    for name in row
]
_JOBS = (
    "Head of Operations",
    "Purchasing Manager",
    "IT Manager",
    "Marketing Manager",
    "Managing Director",
    "Project Lead",
    "Office Manager",
    "Financial Controller",
    "Sales Director",
)
_PROVIDERS = ("Example Telecom", "Sample Broadband", "Specimen Mobile", "Placeholder Cable")
_PLANS = ("", "", "", "Starter", "Starter", "Team", "Team", "Business")
ADA = 2
"""The number of the person whom examples name."""


def kind(number: int) -> Kind:
    """Returns what is known of a user: nothing, the company, or the person."""
    kinds: tuple[Kind, ...] = ("unidentified", "company", "person")
    return kinds[number % 3]


def utc_offset(seed: int, number: int) -> int:
    """Returns how many hours a user's clock is ahead."""
    return int(_home(Dice(seed, number), number)[1].utc_offset)


@lru_cache(maxsize=1_000)
def visitor(seed: int, number: int, *, hostile: bool) -> Visitor:
    """Returns who a user is."""
    dice = Dice(seed, number)
    company, home = _home(dice, number)
    device = dice.weighted(_DEVICES, _DEVICES_PASSED)
    provider = dice.pick(_PROVIDERS)
    ip = f"203.0.113.{1 + int(dice.random() * 250)}"
    if company and home.city == company.city:
        ip = _OFFICES[company.domain]
    person = _person(dice, number, company) if kind(number) == "person" else None
    return Visitor(seed, number, hostile, kind(number), home, device, ip, provider, company, person)


def headquarters(company: Company) -> Place:
    """Returns where a company is."""
    return _BY_CITY[company.city]


def _home(dice: Dice, number: int) -> tuple[Company | None, Place]:
    """The company that a user works for, if that is known, and where they live: mostly where their company is."""
    company: Company | None = dice.weighted(_COMPANIES, _COMPANIES_PASSED)
    home, moves = dice.weighted(_PLACES, _PLACES_PASSED), dice.random()
    if number == ADA:
        company, moves = _COMPANIES[0], 1.0
    elif kind(number) == "unidentified" or (kind(number) == "person" and moves < 0.15):
        company = None
    if company and moves > 0.25:
        home = headquarters(company)
    return company, home


def _person(dice: Dice, number: int, company: Company | None) -> Person:
    first, last = dice.pick(_FIRST_NAMES), dice.pick(_LAST_NAMES)
    if number == ADA:
        first, last = "Ada", "Moreau"
    plan, priority = dice.pick(_PLANS) if number != ADA else "Team", dice.random()
    tags = (("customer,priority" if priority < 0.3 else "customer") if plan else "prospect") if priority < 0.7 else ""
    domain = company.domain if company else "mail.example"
    return Person(first, last, f"{first}.{last}@{domain}".lower(), dice.pick(_JOBS), tags, plan)
