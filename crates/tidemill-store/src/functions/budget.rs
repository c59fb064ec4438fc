//! What runs use of their budgets.

use super::{Function, FunctionCall};
use crate::{Error, Partition};

pub(super) const SPEND: Function = Function { name: "tm1_spend", keys: &["live"], args: &["sums"] };

/// What was used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Steps, items and rounds.
    pub steps: u64,
    /// Cost, in millionths.
    pub cost_micros: u64,
}

/// The field of a run's hash that says what it may use up, for whoever carries out its steps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BudgetField {
    /// The run whose budget it is: what it started is bounded with it.
    pub owner: String,
    /// Steps, items and rounds.
    pub steps: Option<u64>,
    /// Cost, in millionths.
    pub cost_micros: Option<u64>,
}

impl BudgetField {
    /// The field's name.
    pub const NAME: &'static str = "bud";

    /// Reads the field.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.splitn(3, ' ');
        let mut word = || words.next().filter(|word| !word.is_empty());
        let (steps, cost, owner) = (word()?, word()?, word()?);
        let number = |text: &str| if text == "-" { Some(None) } else { text.parse().ok().map(Some) };
        Some(Self { steps: number(steps)?, cost_micros: number(cost)?, owner: owner.to_owned() })
    }
}

impl std::fmt::Display for BudgetField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        write!(f, "{} {} {}", number(self.steps), number(self.cost_micros), self.owner)
    }
}

impl Partition {
    /// Adds to what runs have used, each with all that it has started. Those that have ended stay as they are.
    ///
    /// # Errors
    /// Redis is not reachable or refuses; whether it was added is then unknown.
    pub async fn spend(&self, sums: &[(String, Spent)]) -> Result<(), Error> {
        if sums.is_empty() {
            return Ok(());
        }
        let mut call = FunctionCall::new(&SPEND, 1 + sums.len());
        call.key(&self.keys().live());
        for (run, _) in sums {
            call.key(&self.keys().run(run));
        }
        call.arg(sums.len());
        for (run, spent) in sums {
            call.arg(run).arg(spent.steps).arg(spent.cost_micros);
        }
        let _: i64 = self.link().query("adding to budgets", call.command()).await?;
        Ok(())
    }

    /// What runs have used so far.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn spent(&self, runs: &[String]) -> Result<Vec<Spent>, Error> {
        let names = ["bs", "bc"].map(str::to_owned).to_vec();
        let wanted: Vec<_> = runs.iter().map(|run| (self.keys().run(run), names.clone())).collect();
        let number = |value: Option<&Option<bytes::Bytes>>| {
            let text = value.and_then(Option::as_ref).and_then(|value| std::str::from_utf8(value).ok());
            text.and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        let spent = |row: Vec<Option<bytes::Bytes>>| Spent {
            steps: number(row.first()),
            cost_micros: number(row.get(1)),
        };
        Ok(self.run_fields(&wanted).await?.into_iter().map(spent).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::BudgetField;

    #[test]
    fn a_budget_reads_back_and_nonsense_is_none() {
        for (steps, cost_micros) in [(None, None), (Some(7), None), (None, Some(0))] {
            let budget = BudgetField { steps, cost_micros, owner: "r~a.0".to_owned() };
            assert_eq!(BudgetField::parse(&budget.to_string()), Some(budget));
        }
        for bad in ["", "7", "x - r", "- -1 r", "7  8 r", "7 8", "7 8 "] {
            assert_eq!(BudgetField::parse(bad), None, "{bad:?}");
        }
    }
}
