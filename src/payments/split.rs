//! Splitting amounts without losing a unit (payments.md 13): largest remainder, whole numbers only.
#![deny(clippy::float_arithmetic)]

/// Spreads an amount over weights: in proportion, each part rounded down, and what is left over one
/// unit each to the largest remainders, the first of equal ones first. The parts sum to the amount;
/// all are 0 when every weight is.
pub(crate) fn spread(amount: i64, weights: &[i64]) -> Vec<i64> {
    let whole: i128 = weights.iter().map(|weight| i128::from(*weight)).sum();
    if whole == 0 {
        return vec![0; weights.len()];
    }
    let exact = |weight: &i64| i128::from(amount) * i128::from(*weight);
    let floor = |product: i128| i64::try_from(product / whole).expect("a part is within the whole");
    let mut parts: Vec<i64> = weights.iter().map(|weight| floor(exact(weight))).collect();
    let mut left = amount - parts.iter().sum::<i64>();
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by_key(|at| std::cmp::Reverse(exact(&weights[*at]) % whole));
    for at in by_remainder {
        if left == 0 {
            break;
        }
        parts[at] += 1;
        left -= 1;
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_remainders_go_to_the_first() {
        assert_eq!(spread(10, &[1, 1, 1]), [4, 3, 3]);
        assert_eq!(spread(11, &[1, 1, 1]), [4, 4, 3]);
        assert_eq!(spread(1_999, &[8_500, 1_000, 0, 500]), [1_699, 200, 0, 100]);
        assert_eq!(spread(5, &[0, 0]), [0, 0]);
    }

    proptest! {
        /// M17: the parts sum to the amount, each within one unit of its share, also when what was
        /// given is taken back in any number of pieces.
        #[test]
        fn any_amount_is_given_and_taken_back_whole(
            amount in 1..10_000_000_000_i64,
            weights in prop::collection::vec(0..10_000_i64, 1..6),
            cuts in prop::collection::vec(1..10_000_000_000_i64, 0..8),
        ) {
            prop_assume!(weights.iter().any(|weight| *weight > 0));
            let parts = spread(amount, &weights);
            prop_assert_eq!(parts.iter().sum::<i64>(), amount);
            let whole: i128 = weights.iter().map(|weight| i128::from(*weight)).sum();
            for (part, weight) in parts.iter().zip(&weights) {
                let share = i128::from(amount) * i128::from(*weight);
                prop_assert!((i128::from(*part) * whole - share).abs() < whole);
            }
            let mut left = parts;
            for cut in cuts {
                let cut = cut.min(left.iter().sum());
                let taken = spread(cut, &left);
                prop_assert_eq!(taken.iter().sum::<i64>(), cut);
                for (left, taken) in left.iter_mut().zip(taken) {
                    *left -= taken;
                    prop_assert!(*left >= 0);
                }
            }
            let rest: i64 = left.iter().sum();
            prop_assert_eq!(spread(rest, &left), left);
        }
    }
}
