//! Who was taken for whom, as a table: counts of classes or choices, `counts[truth][guess]`.

use crate::output;

/// The most classes that stand beside one another; of more, each says what it was taken for most often.
const COLUMNS: usize = 8;

/// How often each class, where it was right, was taken for each.
pub fn table(names: &[String], counts: &[Vec<u64>]) -> String {
    let rows = if names.len() > COLUMNS {
        by_class(names, counts)
    } else {
        whole(names, counts)
    };
    output::table(&rows)
}

fn whole(names: &[String], counts: &[Vec<u64>]) -> Vec<Vec<String>> {
    let heading = |name: &String| format!("taken for {name:?}");
    let first = std::iter::once("right".to_owned()).chain(names.iter().map(heading));
    let mut rows = vec![first.collect::<Vec<_>>()];
    for (name, counts) in names.iter().zip(counts) {
        let counts = counts.iter().map(u64::to_string);
        rows.push(std::iter::once(format!("{name:?}")).chain(counts).collect());
    }
    rows
}

fn by_class(names: &[String], counts: &[Vec<u64>]) -> Vec<Vec<String>> {
    let heading = ["right", "records", "told right", "most often taken for"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for (truth, (name, counts)) in names.iter().zip(counts).enumerate() {
        let all: u64 = counts.iter().sum();
        let right = counts.get(truth).copied().unwrap_or_default();
        let others = counts.iter().zip(names).enumerate();
        let others = others.filter(|(guess, (count, _))| *guess != truth && **count > 0);
        let most = others.max_by_key(|(guess, (count, _))| (**count, std::cmp::Reverse(*guess)));
        let most = most.map(|(_, (count, other))| format!("{other:?} ({count})"));
        rows.push(vec![
            format!("{name:?}"),
            all.to_string(),
            right.to_string(),
            most.unwrap_or_default(),
        ]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|class| format!("c{class}")).collect()
    }

    #[test]
    fn a_few_classes_stand_beside_one_another() {
        let shown = table(&names(2), &[vec![3, 1], vec![0, 4]]);
        let want = "right  taken for \"c0\"  taken for \"c1\"\n\
                    \"c0\"   3               1\n\
                    \"c1\"   0               4";
        assert_eq!(shown, want);
    }

    #[test]
    fn of_many_classes_each_says_what_it_was_taken_for_most_often() {
        let mut counts = vec![vec![0; 20]; 20];
        counts[0][0] = 7;
        counts[0][5] = 2;
        counts[0][3] = 2;
        counts[0][1] = 1;
        counts[19][19] = 4;
        let shown = table(&names(20), &counts);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 21);
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words(lines[1]), "\"c0\" 12 7 \"c3\" (2)");
        assert_eq!(words(lines[20]), "\"c19\" 4 4");
    }
}
