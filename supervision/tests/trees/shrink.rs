//! Makes a failing case small: what is left is needed for the failure.

use std::collections::BTreeSet;

use super::case::Case;

/// Tries before it is content with what it has.
const TRIES_MAX: usize = 400;

/// The case without all that can be left out, so that it still fails. The case itself must fail.
pub fn shrink(case: &Case, fails: impl Fn(&Case) -> bool) -> Case {
    let mut smallest = case.clone();
    let mut tries = 0;
    loop {
        let next = smaller(&smallest).find(|smaller| {
            tries += 1;
            tries <= TRIES_MAX && fails(smaller)
        });
        match next {
            Some(smaller) => smallest = smaller,
            None => return smallest,
        }
    }
}

/// Each of these has less in it, large pieces gone first, so that shrinking comes to an end.
fn smaller(case: &Case) -> impl Iterator<Item = Case> {
    let nodes: Vec<usize> = case.nodes.iter().map(|node| node.number).filter(|number| *number != 0).collect();
    let deeds: Vec<usize> = case.deeds.iter().map(|deed| deed.number).collect();
    let (all_nodes, all_deeds) = (to_set(&nodes), to_set(&deeds));
    let fewer_deeds = without_chunks(deeds).map(move |deeds| case.only(&all_nodes, &deeds));
    let fewer_nodes = without_chunks(nodes).map(move |nodes| case.only(&nodes, &all_deeds));
    fewer_deeds.chain(fewer_nodes)
}

/// The list without a half of it, a quarter of it, and so on down to one.
fn without_chunks(list: Vec<usize>) -> impl Iterator<Item = BTreeSet<usize>> {
    let sizes = std::iter::successors(Some(list.len()), |size| Some(size / 2)).take_while(|size| *size > 0);
    sizes.flat_map(move |size| {
        let list = list.clone();
        (0..list.len()).step_by(size).map(move |start| {
            let gone = start..(start + size).min(list.len());
            list.iter().enumerate().filter(|(index, _)| !gone.contains(index)).map(|(_, number)| *number).collect()
        })
    })
}

fn to_set(list: &[usize]) -> BTreeSet<usize> {
    list.iter().copied().collect()
}
